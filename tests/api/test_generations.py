"""`POST /v1/images/generations`: what it takes, what it refuses, and how it answers."""

import asyncio
import base64
import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from app.db.tables.jobs import jobs
from app.domain.failures import FailureKind
from tests.api.conftest import PNG, PUBLIC_URL, Gateway

PATH = "/v1/images/generations"
PLAIN: dict[str, Any] = {"model": "gpt-image-2", "prompt": "a lighthouse"}


async def delivery(gateway: Gateway, job_id: str) -> tuple[bool, bool]:
    """Whether a job's answer was delivered, and whether its caller counts as held."""
    async with gateway.database.reading() as connection:
        row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).one()
    return row.delivered_at is not None, row.waited_until > row.created_at


async def asked(client: httpx2.AsyncClient, body: dict[str, Any], **headers: str) -> httpx2.Response:
    return await client.post(PATH, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


async def made(gateway: Gateway, client: httpx2.AsyncClient, body: dict[str, Any]) -> httpx2.Response:
    """A synchronous answer to a request whose pictures are made at once."""
    answer, _ = await asyncio.gather(asked(client, body), gateway.finish_next())
    return answer


async def test_a_picture_comes_back_as_base64(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    answer = await made(gateway, client, PLAIN)
    assert answer.status_code == 200
    body = answer.json()
    assert base64.b64decode(body["data"][0]["b64_json"]) == PNG
    assert list(body) == ["created", "background", "data", "output_format", "quality", "size", "usage"]
    assert (body["size"], body["quality"], body["output_format"]) == ("40x30", "low", "png")
    assert body["usage"]["total_tokens"] == 210
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["x-darkroom-job-id"].startswith("job_")
    assert answer.headers["x-darkroom-upstream"] == "openai"
    assert answer.headers["x-darkroom-attempts"] == "1"
    assert answer.headers["x-darkroom-cost-usd"] == "0.007152"
    assert await delivery(gateway, answer.headers["x-darkroom-job-id"]) == (True, True)


async def test_several_pictures_keep_their_places(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    answer = await made(gateway, client, {**PLAIN, "n": 3})
    assert [base64.b64decode(item["b64_json"]) for item in answer.json()["data"]] == [PNG] * 3


async def test_links_need_no_key(
    gateway: Gateway, client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient
) -> None:
    answer = await made(gateway, client, {**PLAIN, "response_format": "url"})
    (item,) = answer.json()["data"]
    assert list(item) == ["url"]
    picture = await anonymous.get(item["url"])
    assert (picture.status_code, picture.content) == (200, PNG)


async def test_null_means_not_given(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    names = (
        "n",
        "size",
        "quality",
        "background",
        "output_format",
        "output_compression",
        "moderation",
        "stream",
    )
    more = ("response_format", "user", "partial_images", "metadata", "priority", "style")
    answer = await made(gateway, client, {**PLAIN, **dict.fromkeys(names), **dict.fromkeys(more)})
    assert answer.status_code == 200


async def test_every_parameter_reaches_the_job(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    body = {
        **PLAIN,
        "n": 2,
        "size": "1024x1024",
        "quality": "low",
        "background": "opaque",
        "output_format": "webp",
        "output_compression": 50,
        "moderation": "low",
        "user": "someone",
        "partial_images": 0,
        "stream": False,
        "response_format": "url",
        "frame_style": {"as": ["yet", "unknown"]},
        "metadata": {"album": "one"},
        "priority": "high",
        "cancel_after_s": 60,
    }
    answer = await asked(client, body, prefer="respond-async")
    assert answer.status_code == 202, answer.text
    job = (await gateway.jobs.view(answer.json()["id"], None)).job
    assert (job.metadata, job.priority) == ({"album": "one"}, 0)
    assert job.cancel_at is not None
    assert 55 < (job.cancel_at - job.created_at).total_seconds() < 65
    assert (job.deadline_at - job.created_at).total_seconds() > 500
    request = job.request
    assert (request.n, request.size, request.quality, request.background) == (2, "1024x1024", "low", "opaque")
    assert (request.output_format, request.output_compression, request.moderation) == ("webp", 50, "low")
    assert (request.user, request.partial_images, request.response_format) == ("someone", 0, "url")
    assert request.extra == {"frame_style": {"as": ["yet", "unknown"]}}


@pytest.mark.parametrize(
    "name,value,stored",
    [
        ("x-darkroom-priority", "low", ("priority", 2)),
        ("x-darkroom-metadata", '{"album": "one"}', ("metadata", {"album": "one"})),
        ("x-darkroom-metadata", '{"album": "été"}', ("metadata", {"album": "été"})),
    ],
)
async def test_options_can_come_as_headers(
    gateway: Gateway, client: httpx2.AsyncClient, name: str, value: str, stored: tuple[str, Any]
) -> None:
    answer = await client.post(f"{PATH}?async=true", json=PLAIN, headers={name.encode(): value.encode()})
    job = (await gateway.jobs.view(answer.json()["id"], None)).job
    assert getattr(job, stored[0]) == stored[1]


BAD: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"prompt": "a"}, 400, "missing_required_parameter", "model"),
    ({"model": "", "prompt": "a"}, 400, "missing_required_parameter", "model"),
    ({"model": "gpt-image-2"}, 400, "missing_required_parameter", "prompt"),
    ({**PLAIN, "prompt": "  "}, 400, "missing_required_parameter", "prompt"),
    ({**PLAIN, "prompt": ["a"]}, 400, "invalid_value", "prompt"),
    ({**PLAIN, "prompt": "a" * 32_001}, 400, "invalid_value", "prompt"),
    ({**PLAIN, "model": "nobody's"}, 404, "model_not_found", "model"),
    ({**PLAIN, "n": 0}, 400, "invalid_value", "n"),
    ({**PLAIN, "n": 11}, 400, "invalid_value", "n"),
    ({**PLAIN, "n": "1"}, 400, "invalid_value", "n"),
    ({**PLAIN, "n": True}, 400, "invalid_value", "n"),
    ({**PLAIN, "n": 1.0}, 400, "invalid_value", "n"),
    ({**PLAIN, "size": "1023x1024"}, 400, "invalid_value", "size"),
    ({**PLAIN, "size": 1024}, 400, "invalid_value", "size"),
    ({**PLAIN, "quality": "ultra"}, 400, "invalid_value", "quality"),
    ({**PLAIN, "background": "pink"}, 400, "invalid_value", "background"),
    ({**PLAIN, "output_format": "tiff"}, 400, "invalid_value", "output_format"),
    (
        {**PLAIN, "output_compression": 101, "output_format": "jpeg"},
        400,
        "invalid_value",
        "output_compression",
    ),
    ({**PLAIN, "output_compression": 50}, 400, "invalid_value", "output_compression"),
    ({**PLAIN, "moderation": "none"}, 400, "invalid_value", "moderation"),
    ({**PLAIN, "response_format": "tiff"}, 400, "invalid_value", "response_format"),
    ({**PLAIN, "stream": True, "response_format": "url"}, 400, "invalid_value", "response_format"),
    ({**PLAIN, "stream": True, "partial_images": 4}, 400, "invalid_value", "partial_images"),
    ({**PLAIN, "stream": "false"}, 400, "invalid_value", "stream"),
    ({**PLAIN, "partial_images": 2}, 400, "invalid_value", "partial_images"),
    ({**PLAIN, "input_fidelity": "high"}, 400, "unsupported_parameter", "input_fidelity"),
    ({**PLAIN, "image": "data:image/png;base64,"}, 400, "unknown_parameter", "image"),
    ({**PLAIN, "user": 7}, 400, "invalid_value", "user"),
    ({**PLAIN, "webhook_url": "ftp://example.com"}, 400, "invalid_url", "webhook_url"),
    ({**PLAIN, "webhook_url": "https://user:pw@example.com"}, 400, "invalid_url", "webhook_url"),
    ({**PLAIN, "webhook_url": "https://example.com/" + "x" * 2048}, 400, "invalid_url", "webhook_url"),
    ({**PLAIN, "priority": "urgent"}, 400, "invalid_value", "priority"),
    ({**PLAIN, "cancel_after_s": 0}, 400, "invalid_value", "cancel_after_s"),
    ({**PLAIN, "cancel_after_s": "9"}, 400, "invalid_value", "cancel_after_s"),
    ({**PLAIN, "metadata": {str(n): "v" for n in range(17)}}, 400, "invalid_value", "metadata"),
    ({**PLAIN, "metadata": {"k" * 65: "v"}}, 400, "invalid_value", "metadata"),
    ({**PLAIN, "metadata": {"k": "v" * 513}}, 400, "invalid_value", "metadata"),
    ({**PLAIN, "metadata": {"k": 1}}, 400, "invalid_value", "metadata"),
    ({**PLAIN, "metadata": {'k"': "v"}}, 400, "invalid_value", "metadata"),
    ({**PLAIN, "metadata": ["k"]}, 400, "invalid_value", "metadata"),
]


@pytest.mark.parametrize("body,status,code,param", BAD)
async def test_a_bad_request_is_told_what_is_wrong(
    gateway: Gateway,
    client: httpx2.AsyncClient,
    body: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
) -> None:
    answer = await asked(client, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert answer.headers["x-should-retry"] == "false"
    found, _ = await gateway.jobs.search("default", metadata={})
    assert not found


@pytest.mark.parametrize(
    "headers,param",
    [
        ({"idempotency-key": ""}, "Idempotency-Key"),
        ({"idempotency-key": "k" * 256}, "Idempotency-Key"),
        ({"idempotency-key": "ü".encode("latin-1")}, "Idempotency-Key"),
        ({"x-darkroom-priority": "urgent"}, "priority"),
        ({"x-darkroom-priority": ""}, "priority"),
        ({"x-darkroom-cancel-after-s": "soon"}, "cancel_after_s"),
        ({"x-darkroom-metadata": '{"a": 1}'}, "metadata"),
        ({"x-darkroom-metadata": "album=one"}, "metadata"),
        ({"x-darkroom-metadata": '["album"]'}, "metadata"),
        ({"x-darkroom-metadata": '{"a": "1", "a": "2"}'}, "metadata"),
        ({"x-darkroom-metadata": '{"a": "é"}'.encode("latin-1")}, "metadata"),
    ],
)
async def test_bad_headers_are_refused(
    client: httpx2.AsyncClient, headers: dict[str, Any], param: str
) -> None:
    answer = await client.post(PATH, json=PLAIN, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_header_must_not_contradict_the_body(client: httpx2.AsyncClient) -> None:
    answer = await asked(client, {**PLAIN, "priority": "low"}, x_darkroom_priority="high")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "priority")


async def test_an_unknown_parameter_that_no_route_passes_on_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await asked(client, {**PLAIN, "model": "gpt-image-1", "novelty": 1})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "novelty")


async def test_the_body_can_ask_for_the_job_too(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    key = {"idempotency_key": "order-1"}
    answer = await asked(client, {**PLAIN, "async": True}, **key)
    assert (answer.status_code, answer.json()["object"]) == (202, "image_job")
    job = (await gateway.jobs.view(answer.json()["id"], None)).job
    assert job.request.extra == {}
    again = await client.post(f"{PATH}?async=true", json=PLAIN, headers={"idempotency-key": "order-1"})
    assert again.json()["id"] == answer.json()["id"]


@pytest.mark.parametrize(
    "query,body",
    [
        ("", {"async": "yes"}),
        ("", {"async": True, "stream": True}),
        ("?async=true", {"async": False}),
        ("?async=false", {"async": True}),
        ("?async=true&async=false", {}),
    ],
)
async def test_async_must_be_clear(client: httpx2.AsyncClient, query: str, body: dict[str, Any]) -> None:
    answer = await client.post(f"{PATH}{query}", json={**PLAIN, **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", "async")


async def test_a_body_beyond_the_bound_is_told_which_bound_it_is(client: httpx2.AsyncClient) -> None:
    answer = await asked(client, {**PLAIN, "note": "x" * 1_100_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    message = answer.json()["error"]["message"]
    assert "1048576 bytes" in message
    assert "DARKROOM_MAX_BODY_BYTES" in message


async def test_async_is_a_yes_or_a_no(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{PATH}?async=maybe", json=PLAIN)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "async")


@pytest.mark.parametrize("query,headers", [("?async=true", {}), ("", {"prefer": "respond-async, wait=5"})])
async def test_an_asynchronous_call_is_answered_with_the_job(
    gateway: Gateway, client: httpx2.AsyncClient, query: str, headers: dict[str, str]
) -> None:
    answer = await client.post(PATH + query, json=PLAIN, headers=headers)
    body = answer.json()
    assert answer.status_code == 202
    assert list(body) == ["id", "object", "status", "model", "created_at", "expires_at", "polling_url"]
    assert (body["object"], body["status"], body["model"]) == ("image_job", "queued", "gpt-image-2")
    assert body["expires_at"] - body["created_at"] == 604_800
    assert answer.headers["location"] == body["polling_url"]
    assert int(answer.headers["retry-after"]) >= 1
    assert ("preference-applied" in answer.headers) is bool(headers)
    assert (await delivery(gateway, body["id"]))[0]


async def test_async_and_stream_exclude_each_other(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{PATH}?async=true", json={**PLAIN, "stream": True})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", "async")


async def test_an_alias_is_as_good_as_the_name(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{PATH}?async=true", json={**PLAIN, "model": "openai/gpt-image-2"})
    assert answer.json()["model"] == "gpt-image-2"


async def test_the_same_key_and_body_get_the_same_bytes(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    body = {**PLAIN, "metadata": {"a": "1"}}
    first, _ = await asyncio.gather(asked(client, body, idempotency_key="k1"), gateway.finish_next())
    # Other white space, another order, another way to say "not given": the same request.
    text = json.dumps({"size": None, **dict(reversed(body.items()))}, indent=2)
    headers = {"idempotency-key": "k1", "content-type": "application/json; charset=utf-8"}
    again = await client.post(PATH, content=text, headers=headers)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["x-darkroom-job-id"] == first.headers["x-darkroom-job-id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-expires"] == first.headers["idempotency-expires"]


async def test_the_same_key_with_another_body_is_refused(client: httpx2.AsyncClient) -> None:
    await client.post(f"{PATH}?async=true", json=PLAIN, headers={"idempotency-key": "k1"})
    answer = await asked(client, {**PLAIN, "n": 2}, idempotency_key="k1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "kind,status,code,should_retry",
    [
        (FailureKind.REFUSED, 400, "moderation_blocked", "false"),
        (FailureKind.DOWN, 502, "all_upstreams_failed", "true"),
        (FailureKind.TIMED_OUT, 502, "upstream_outcome_unknown", "false"),
    ],
)
async def test_a_failed_job_answers_with_its_error(
    gateway: Gateway,
    client: httpx2.AsyncClient,
    kind: FailureKind,
    status: int,
    code: str,
    should_retry: str,
) -> None:
    async def fail_next() -> None:
        await gateway.worker.rung()
        await gateway.worker.fail(kind)

    answer, _ = await asyncio.gather(asked(client, PLAIN), fail_next())
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert answer.headers["x-should-retry"] == should_retry
    assert error["job_id"] == answer.headers["x-darkroom-job-id"]
    assert (await delivery(gateway, error["job_id"]))[0]


async def test_a_job_cancelled_while_its_caller_waits_answers_409(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    async def cancel_next() -> None:
        await gateway.worker.rung()
        found, _ = await gateway.jobs.search("default", metadata={})
        await gateway.jobs.cancel(found[0].job.id, "default")

    answer, _ = await asyncio.gather(asked(client, PLAIN), cancel_next())
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")


async def test_a_caller_is_sent_away_from_a_job_that_goes_on(
    gateway: Gateway, impatient: httpx2.AsyncClient
) -> None:
    answer = await asked(impatient, PLAIN)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (504, "job_still_running")
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["location"] == f"{PUBLIC_URL}/v1/jobs/{error['job_id']}"
    is_delivered, _ = await delivery(gateway, error["job_id"])
    assert not is_delivered
    await gateway.worker.rung()
    assert (await gateway.worker.finish()).id == error["job_id"]


async def test_a_stopping_server_sends_its_callers_to_their_jobs(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    async def stop() -> None:
        await gateway.worker.rung()
        gateway.jobs.stop()

    answer, _ = await asyncio.gather(asked(client, PLAIN), stop())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")


async def test_the_sdks_retry_takes_the_place_of_a_caller_that_was_sent_away(
    gateway: Gateway, client: httpx2.AsyncClient, impatient: httpx2.AsyncClient
) -> None:
    await asked(impatient, PLAIN)
    again, _ = await asyncio.gather(asked(client, PLAIN, x_stainless_retry_count="1"), gateway.finish_next())
    assert again.status_code == 200
    found, _ = await gateway.jobs.search("default", metadata={})
    assert [view.job.id for view in found] == [again.headers["x-darkroom-job-id"]]


async def test_variations_are_retired(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/images/variations", files={"image": PNG})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "/v1/images/edits" in answer.json()["error"]["message"]
