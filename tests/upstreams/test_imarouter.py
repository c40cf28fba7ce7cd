"""ImaRouter's two dialects, there and back."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.domain.results import Usage
from app.upstreams.contract import (
    Call,
    Finished,
    InputDataUrl,
    InputLink,
    JsonBody,
    RemotePicture,
    Reply,
    ReplyJson,
    Target,
    Waiting,
)
from app.upstreams.vendors.imarouter import ADAPTER

JOBS = Target(base_url="https://vendor.test/v1", model="gpt-image-2", pictures=3)
TASKS = replace(JOBS, options={"dialect": "tasks"})
ORDER = "job_8c1f2a"
LINK = f"https://cdn.test/{ORDER}/0.png"
REQUEST = ImageRequest(model="gpt-image-2", prompt="p", n=5)
FULL = replace(
    REQUEST,
    size="1536x864",
    quality="high",
    background="opaque",
    output_format="webp",
    output_compression=50,
    moderation="low",
    input_fidelity="high",
    user="user-1",
    safety_identifier="s-1",
    stream=True,
    partial_images=2,
    extra={"frame_count": 4},
)


def an_input(file_id: str) -> InputPicture:
    return InputPicture(file_id=file_id, format=PictureFormat.JPEG, width_px=8, height_px=8, size_bytes=9)


EDIT = replace(
    REQUEST,
    operation=Operation.EDIT,
    images=(an_input("file_a"), an_input("file_b")),
    mask=an_input("file_m"),
)


def a_reply(status: int, body: ReplyJson, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=names, body=body, is_json=body is not None)


def a_job(status: str, **fields: ReplyJson) -> Reply:
    return a_reply(200, {"id": ORDER, "status": status, **fields})


def a_task(status: str, **fields: ReplyJson) -> Reply:
    return a_reply(200, {"code": "success", "data": {"task_id": ORDER, "status": status, **fields}})


def body_of(request: ImageRequest, target: Target) -> dict[str, Any]:
    body = ADAPTER.submit(request, target).body
    assert isinstance(body, JsonBody)
    return dict(body.value)


def failure_of(reply: Reply, ticket: str | None = ORDER) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        ADAPTER.read(reply, ticket)
    return caught.value


def test_a_job_is_ordered_in_camel_case_under_its_models_path() -> None:
    assert ADAPTER.submit(FULL, JOBS) == Call(
        method="POST",
        url="https://vendor.test/v1/image/gpt-image-2/generate",
        body=JsonBody(
            value={
                "prompt": "p",
                "imageSize": {"width": 1536, "height": 864},
                "quality": "high",
                "numImages": 3,
                "outputFormat": "webp",
            }
        ),
    )


def test_a_task_is_ordered_in_snake_case_and_for_one_picture() -> None:
    assert ADAPTER.submit(FULL, TASKS) == Call(
        method="POST",
        url="https://vendor.test/v1/images/generations",
        body=JsonBody(
            value={
                "model": "gpt-image-2",
                "prompt": "p",
                "n": 1,
                "size": "1536x864",
                "quality": "high",
                "background": "opaque",
                "output_format": "webp",
                "output_compression": 50,
                "moderation": "low",
                "input_fidelity": "high",
            }
        ),
    )


def test_what_the_client_left_open_is_left_to_the_vendor() -> None:
    open_request = replace(REQUEST, size="auto", quality="auto")

    assert body_of(open_request, JOBS) == body_of(REQUEST, JOBS) == {"prompt": "p", "numImages": 3}
    assert body_of(open_request, TASKS) == {"model": "gpt-image-2", "prompt": "p", "n": 1}


@pytest.mark.parametrize(
    "size,written",
    [
        ("1024x1024", "square_hd"),
        ("768x1024", "portrait_4_3"),
        ("1024x768", "landscape_4_3"),
        ("512x512", {"width": 512, "height": 512}),
        ("1024x576", {"width": 1024, "height": 576}),
        ("3840x2160", {"width": 3840, "height": 2160}),
    ],
)
def test_only_a_preset_that_names_the_exact_size_stands_for_it(size: str, written: object) -> None:
    assert body_of(replace(REQUEST, size=size), JOBS)["imageSize"] == written


def test_only_an_edit_may_ask_for_the_size_of_its_input() -> None:
    assert body_of(replace(EDIT, size="auto"), JOBS)["imageSize"] == "auto"
    assert "imageSize" not in body_of(EDIT, JOBS)


def test_an_edit_names_its_inputs_by_link_in_their_order() -> None:
    links = [InputLink("file_a"), InputLink("file_b")]

    call = ADAPTER.submit(EDIT, JOBS)
    assert call.url == "https://vendor.test/v1/image/gpt-image-2/edit"
    job, task = body_of(EDIT, JOBS), body_of(EDIT, TASKS)
    assert (job["imageUrls"], job["maskUrl"]) == (links, InputLink("file_m"))
    assert (task["images"], task["mask"]) == (links, InputLink("file_m"))


@pytest.mark.parametrize(
    "dialect,images,mask", [("jobs", "imageUrls", "maskUrl"), ("tasks", "images", "mask")]
)
def test_inputs_stand_in_the_order_where_that_is_allowed_and_nobody_can_fetch_them(
    dialect: str, images: str, mask: str
) -> None:
    target = replace(JOBS, options={"dialect": dialect, "accepts_data_urls": True})
    sent = body_of(EDIT, target)
    linked = body_of(EDIT, replace(target, can_link=True))

    assert sent[images][0] == InputDataUrl("file_a", "image/jpeg")
    assert sent[mask] == InputDataUrl("file_m", "image/jpeg")
    assert linked[images][0] == InputLink("file_a")
    assert linked[mask] == InputLink("file_m")


@pytest.mark.parametrize("target,path", [(JOBS, "jobs"), (TASKS, "images/generations")])
def test_an_order_is_asked_after_at_the_configured_address(target: Target, path: str) -> None:
    asked = ADAPTER.resume("a/../b?c", target)

    assert asked == Call(method="GET", url=f"https://vendor.test/v1/{path}/a%2F..%2Fb%3Fc")


def test_a_model_cannot_lead_the_path_elsewhere() -> None:
    call = ADAPTER.submit(REQUEST, replace(JOBS, model="../x"))

    assert call.url == "https://vendor.test/v1/image/..%2Fx/generate"


def test_a_dialect_that_does_not_exist_is_named() -> None:
    target = replace(JOBS, options={"dialect": "queue"})
    with pytest.raises(UpstreamFailure, match="'queue'; write jobs or tasks") as caught:
        ADAPTER.submit(REQUEST, target)

    assert caught.value.kind is FailureKind.UNSUPPORTED


@pytest.mark.parametrize("name", ["id", "jobId", "job_id", "task_id", "requestId", "request_id"])
@pytest.mark.parametrize("status", [200, 202])
def test_an_order_is_accepted_under_whatever_name_its_id_has(name: str, status: int) -> None:
    outcomes = [
        ADAPTER.read(a_reply(status, {name: ORDER}), None),
        ADAPTER.read(a_reply(status, {"code": "success", "data": {name: ORDER}}), None),
        ADAPTER.read(a_reply(status, {name: 17}), None),
    ]

    assert [outcome.ticket for outcome in outcomes if isinstance(outcome, Waiting)] == [ORDER, ORDER, "17"]


def test_each_dialect_is_polled_at_its_own_pace() -> None:
    assert ADAPTER.read(a_job("queued"), None) == Waiting(ticket=ORDER, poll_after_s=3.0)
    assert ADAPTER.read(a_job("RUNNING"), ORDER) == Waiting(ticket=ORDER, poll_after_s=3.0)
    assert ADAPTER.read(a_task("processing"), ORDER) == Waiting(ticket=ORDER, poll_after_s=5.0)


@pytest.mark.parametrize(
    "reply",
    [
        a_reply(500, {"code": "internal", "message": "m"}),
        a_reply(401, {"error": "m"}),
        a_reply(429, {"error": {"message": "m"}}),
        a_reply(502, None),
        a_reply(404, None),
        a_reply(200, None),
        a_reply(200, []),
        a_reply(200, {"code": "error", "message": "m", "data": None}),
        a_job("dreaming"),
        a_reply(200, {"id": ORDER, "status": 7}),
    ],
)
def test_a_question_that_failed_is_asked_again(reply: Reply) -> None:
    assert isinstance(ADAPTER.read(reply, ORDER), Waiting)


def test_a_busy_answer_to_a_question_sets_the_pace() -> None:
    busy = a_reply(429, {"error": "slow down"}, retry_after="30")

    assert ADAPTER.read(busy, ORDER) == Waiting(ticket=ORDER, poll_after_s=30.0)


@pytest.mark.parametrize("status", ["completed", "COMPLETED", "succeeded"])
def test_a_finished_job_has_its_links_and_its_cost(status: str) -> None:
    output: ReplyJson = [{"url": LINK, "width": 8}, {"url": None}, "https://cdn.test/1.png"]
    finished = ADAPTER.read(a_job(status, output=output, usage={"cost": 0.053}), ORDER)

    assert finished == Finished(
        pictures=(RemotePicture(source=LINK), RemotePicture(source="https://cdn.test/1.png")),
        cost_usd=Decimal("0.053"),
    )


@pytest.mark.parametrize("status", ["succeeded", "Completed"])
def test_a_finished_task_has_its_link_its_tokens_and_its_cost(status: str) -> None:
    usage: ReplyJson = {"input_tokens": 14, "output_tokens": 1756, "total_tokens": 1770}
    finished = ADAPTER.read(a_task(status, url=LINK, format="png", usage=usage, amount_usd=0.042), ORDER)

    assert finished == Finished(
        pictures=(RemotePicture(source=LINK),),
        usage=Usage(text_input=14, image_output=1756),
        cost_usd=Decimal("0.042"),
        output_format="png",
    )


@pytest.mark.parametrize("amount", [None, "a lot", -1, True, float("nan"), {"usd": 1}])
def test_an_amount_that_is_none_is_not_a_cost(amount: ReplyJson) -> None:
    finished = ADAPTER.read(a_task("succeeded", url=LINK, amount_usd=amount), ORDER)

    assert isinstance(finished, Finished)
    assert finished.cost_usd is None


@pytest.mark.parametrize(
    "reply",
    [
        a_job("completed"),
        a_job("completed", output=[]),
        a_job("completed", output={}),
        a_job("completed", output=[{}]),
        a_task("succeeded"),
        a_task("succeeded", url=""),
    ],
)
def test_an_order_that_succeeded_without_links_settles_nothing(reply: Reply) -> None:
    assert failure_of(reply).kind is FailureKind.GARBLED


def test_an_order_that_the_vendor_no_longer_knows_may_have_been_paid_for() -> None:
    assert failure_of(a_reply(404, {"code": "not_found", "message": "m"})).kind is FailureKind.GARBLED


@pytest.mark.parametrize("status", ["failed", "FAILED", "error", "cancelled", "expired"])
@pytest.mark.parametrize(
    "error,kind",
    [
        (None, FailureKind.DOWN),
        ("GPT Image 2 generation failed", FailureKind.DOWN),
        ("content rejected", FailureKind.REFUSED),
        ({"message": "content rejected"}, FailureKind.REFUSED),
        ({"message": "no", "code": "moderation_blocked"}, FailureKind.REFUSED),
        ({"code": 17}, FailureKind.DOWN),
    ],
)
def test_an_order_that_ended_without_pictures_says_why(
    status: str, error: ReplyJson, kind: FailureKind
) -> None:
    assert failure_of(a_job(status, error=error)).kind is kind
    assert failure_of(a_task(status, error=error)).kind is kind


@pytest.mark.parametrize(
    "status,kind",
    [
        (400, FailureKind.INVALID),
        (401, FailureKind.CREDENTIALS),
        (402, FailureKind.FUNDS),
        (403, FailureKind.CREDENTIALS),
        (404, FailureKind.UNSUPPORTED),
        (429, FailureKind.BUSY),
        (500, FailureKind.DOWN),
        (502, FailureKind.GARBLED),
        (503, FailureKind.DOWN),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        {"code": "some_code", "message": "m", "data": None},
        {"code": "some_code"},
        {"error": {"message": "m", "type": "some_type"}},
        {"error": {"type": "some_type"}},
        {"error": "m"},
        {"message": "m"},
    ],
)
def test_a_refused_order_is_read_by_its_status_in_every_shape(
    status: int, kind: FailureKind, body: dict[str, ReplyJson]
) -> None:
    assert failure_of(a_reply(status, body), ticket=None).kind is kind


@pytest.mark.parametrize("status", [200, 429, 500, 503])
@pytest.mark.parametrize(
    "body",
    [
        {"message": "Queue full"},
        {"error": "queue full, try later"},
        {"error": {"message": "queue full"}},
        {"code": "error", "message": "queue full", "data": None},
    ],
)
def test_a_full_queue_is_a_busy_vendor(status: int, body: dict[str, ReplyJson]) -> None:
    assert failure_of(a_reply(status, body), ticket=None).kind is FailureKind.BUSY


@pytest.mark.parametrize(
    "body", [{"message": "Order received"}, {"code": "success", "data": {}}, {}, [], None]
)
def test_a_success_without_an_id_may_have_been_paid_for(body: ReplyJson) -> None:
    assert failure_of(a_reply(200, body), ticket=None).kind is FailureKind.GARBLED


def test_the_id_of_a_request_that_failed_is_no_order() -> None:
    body: ReplyJson = {"error": {"message": "m"}, "request_id": "req_1"}

    assert failure_of(a_reply(200, body), ticket=None).kind is FailureKind.DOWN
