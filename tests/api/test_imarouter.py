"""`/v1/image/{model}/generate` and `/edit`: what ImaRouter's own clients send, and the words that they wait for."""

import base64
from typing import Any

import httpx2
import pytest

from app.api.imarouter import PRESETS, scaled_up
from app.domain.failures import FailureKind
from app.domain.pictures import Size
from app.domain.requests import ImageRequest, Operation
from tests.api.conftest import PNG, Gateway
from tests.assets.pictures import SAMPLES
from tests.catalog.shipped import shipped

GENERATE = "/v1/image/gpt-image-2/generate"
EDIT = "/v1/image/gpt-image-2/edit"
PLAIN: dict[str, Any] = {"prompt": "a lighthouse"}
DATA_URL = f"data:image/png;base64,{base64.b64encode(SAMPLES['png']).decode()}"


async def submitted(client: httpx2.AsyncClient, body: dict[str, Any], path: str = GENERATE) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["x-darkroom-job-id"] == found["id"]
    return found


async def request_of(
    gateway: Gateway, client: httpx2.AsyncClient, body: dict[str, Any], path: str = GENERATE
) -> ImageRequest:
    job_id = (await submitted(client, body, path))["id"]
    return (await gateway.jobs.view(job_id, None)).job.request


async def polled(client: httpx2.AsyncClient, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/v1/jobs/{job_id}")).json()
    return found


async def test_a_job_is_followed_in_imarouters_words(
    gateway: Gateway, client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient
) -> None:
    accepted = await submitted(client, {**PLAIN, "numImages": 2})
    assert list(accepted) == ["id", "status"]
    assert accepted["status"] == "queued"
    job_id = accepted["id"]
    assert await polled(client, job_id) == {
        "id": job_id, "status": "queued", "output": [], "error": None, "usage": None,
    }  # fmt: skip
    job, attempt = await gateway.worker.start()
    assert (await polled(client, job_id))["status"] == "running"
    await gateway.worker.complete(job, attempt)
    done = await polled(client, job_id)
    assert (done["status"], done["error"]) == ("completed", None)
    assert done["usage"] == {"cost": 0.007152, "inputTokens": 14, "outputTokens": 196, "totalTokens": 210}
    assert [list(item) for item in done["output"]] == [["url", "width", "height", "contentType"]] * 2
    first = done["output"][0]
    assert (first["width"], first["height"], first["contentType"]) == (40, 30, "image/png")
    assert (await anonymous.get(first["url"])).content == PNG


async def test_lists_and_events_know_one_shape_of_job_alone(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    job_id = (await submitted(client, PLAIN))["id"]
    await gateway.worker.finish()
    (listed,) = (await client.get("/v1/jobs")).json()["data"]
    assert (listed["id"], listed["object"]) == (job_id, "image_job")
    assert '"object":"image_job"' in (await client.get(f"/v1/jobs/{job_id}/events")).text


async def test_a_failure_is_a_sentence(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    job_id = (await submitted(client, PLAIN))["id"]
    await gateway.worker.fail(FailureKind.REFUSED)
    failed = await polled(client, job_id)
    assert (failed["status"], failed["output"]) == ("failed", [])
    assert "safety system" in failed["error"]


async def test_a_cancelled_job_counts_as_failed(client: httpx2.AsyncClient) -> None:
    job_id = (await submitted(client, PLAIN))["id"]
    await client.delete(f"/v1/jobs/{job_id}")
    cancelled = await polled(client, job_id)
    assert (cancelled["status"], "was cancelled" in cancelled["error"]) == ("failed", True)


async def test_every_field_reaches_the_job(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    body = {
        "prompt": "a lighthouse",
        "imageSize": "landscape_4_3",
        "quality": "high",
        "numImages": 3,
        "outputFormat": "webp",
    }
    wanted = await request_of(gateway, client, body)
    assert (wanted.model, wanted.prompt, wanted.n) == ("gpt-image-2", "a lighthouse", 3)
    assert (wanted.size, wanted.quality, wanted.output_format) == ("1024x768", "high", "webp")
    assert (wanted.operation, wanted.adjusted) == (Operation.GENERATION, ())


@pytest.mark.parametrize("name", ["openai/gpt-image-2", "openai%2Fgpt-image-2"])
async def test_a_model_may_go_by_a_name_with_a_slash(
    gateway: Gateway, client: httpx2.AsyncClient, name: str
) -> None:
    wanted = await request_of(gateway, client, PLAIN, f"/v1/image/{name}/generate")
    assert wanted.model == "gpt-image-2"


@pytest.mark.parametrize(
    "size,expected",
    [
        ({"width": 1536, "height": 864}, "1536x864"),
        ("auto", "auto"),
        ("square_hd", "1024x1024"),
        (None, None),
    ],
)
async def test_sizes_are_taken_in_every_form(
    gateway: Gateway, client: httpx2.AsyncClient, size: object, expected: str | None
) -> None:
    wanted = await request_of(gateway, client, {**PLAIN, "imageSize": size})
    assert (wanted.size, wanted.adjusted) == (expected, ())


@pytest.mark.parametrize(
    "name,expected", [("square", "816x816"), ("landscape_16_9", "1280x720"), ("portrait_16_9", "720x1280")]
)
async def test_a_preset_below_the_floor_is_scaled_up_and_said_so(
    gateway: Gateway, client: httpx2.AsyncClient, name: str, expected: str
) -> None:
    accepted = await submitted(client, {**PLAIN, "imageSize": name})
    (note,) = accepted["adjusted"]
    assert note.endswith(f"scaled up to {expected}")
    assert (await polled(client, accepted["id"]))["adjusted"] == [note]
    assert (await gateway.jobs.view(accepted["id"], None)).job.request.size == expected
    await gateway.worker.finish()
    assert (await polled(client, accepted["id"]))["adjusted"][0] == note


def test_every_preset_keeps_its_ratio_and_steps_and_is_as_small_as_can_be() -> None:
    rule = shipped().models["gpt-image-2"].capabilities.sizes
    for preset in PRESETS.values():
        size = scaled_up(preset, rule)
        assert size.width_px * preset.height_px == size.height_px * preset.width_px
        assert size.width_px % 16 == size.height_px % 16 == 0
        assert size.pixels >= 655_360
    assert scaled_up(Size(1024, 640), rule) == Size(1024, 640)


async def test_pictures_to_edit_come_by_their_urls(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    wanted = await request_of(gateway, client, {**PLAIN, "imageUrls": [DATA_URL, DATA_URL]}, EDIT)
    assert wanted.operation is Operation.EDIT
    assert [(item.width_px, item.height_px) for item in wanted.images] == [(40, 30)] * 2


async def test_a_repeated_call_gets_the_same_job(client: httpx2.AsyncClient) -> None:
    client.headers["idempotency-key"] = "once"
    first = await submitted(client, PLAIN)
    answer = await client.post(GENERATE, json=PLAIN)
    assert (answer.json()["id"], answer.headers["idempotency-replayed"]) == (first["id"], "true")


BAD: list[tuple[str, dict[str, Any], int, str]] = [
    (GENERATE, {}, 400, "missing_required_parameter"),
    (GENERATE, {**PLAIN, "model": "gpt-image-2"}, 400, "unknown_parameter"),
    (GENERATE, {**PLAIN, "image_size": "square"}, 400, "unknown_parameter"),
    (GENERATE, {**PLAIN, "imageSize": "tiny"}, 400, "invalid_value"),
    (GENERATE, {**PLAIN, "imageSize": {"width": 1024}}, 400, "invalid_value"),
    (GENERATE, {**PLAIN, "imageSize": {"width": 1024, "height": 1000}}, 400, "invalid_value"),
    (GENERATE, {**PLAIN, "imageSize": {"width": 1024, "height": 1024, "depth": 1}}, 400, "invalid_value"),
    (GENERATE, {**PLAIN, "numImages": "2"}, 400, "invalid_value"),
    (GENERATE, {**PLAIN, "numImages": 11}, 400, "invalid_value"),
    (GENERATE, {**PLAIN, "outputFormat": "bmp"}, 400, "invalid_value"),
    (GENERATE, {**PLAIN, "webhookUrl": "ftp://example.com"}, 400, "invalid_url"),
    (GENERATE, {**PLAIN, "imageUrls": [DATA_URL]}, 400, "unknown_parameter"),
    ("/v1/image/nobodys/generate", PLAIN, 404, "model_not_found"),
    (EDIT, PLAIN, 400, "missing_required_parameter"),
    (EDIT, {**PLAIN, "imageUrls": DATA_URL}, 400, "invalid_value"),
    (EDIT, {**PLAIN, "imageUrls": [7]}, 400, "invalid_value"),
    (EDIT, {**PLAIN, "imageUrls": [DATA_URL] * 17}, 400, "invalid_value"),
    (EDIT, {**PLAIN, "imageUrls": ["ftp://example.com/a.png"]}, 400, "invalid_url"),
    ("/v1/image/gpt-image-2/paint", PLAIN, 404, "not_found"),
]


@pytest.mark.parametrize("path,body,status,code", BAD)
async def test_errors_are_a_sentence_and_a_code(
    client: httpx2.AsyncClient, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert list(answer.json()) == ["error", "code"]
    assert answer.json()["error"].endswith(".")
    assert (await client.get("/v1/jobs")).json()["data"] == []


@pytest.mark.parametrize(
    "body, name",
    [
        ({"numImages": 11}, "numImages"),
        ({"imageSize": {"width": 1000, "height": 1000}}, None),
        ({"webhookUrl": "ftp://example.com"}, "webhookUrl"),
        ({"outputFormat": "bmp"}, None),
    ],
)
async def test_errors_name_parameters_as_this_api_does(
    client: httpx2.AsyncClient, body: dict[str, Any], name: str | None
) -> None:
    told = (await client.post(GENERATE, json={**PLAIN, **body})).json()["error"]
    assert name is None or f"'{name}'" in told
    for foreign in ("'n'", "'size'", "'webhook_url'", "'output_format'"):
        assert foreign not in told


@pytest.mark.parametrize("foreign", ["n", "size", "output_format", "webhook_url", "mask"])
async def test_an_unknown_parameter_is_named_as_the_client_wrote_it(
    client: httpx2.AsyncClient, foreign: str
) -> None:
    answer = await client.post(GENERATE, json={**PLAIN, foreign: "x"})
    assert answer.json() == {"error": f"Unknown parameter: '{foreign}'.", "code": "unknown_parameter"}


async def test_a_missing_key_is_told_in_the_same_form(anonymous: httpx2.AsyncClient) -> None:
    answer = await anonymous.post(GENERATE, json=PLAIN)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
