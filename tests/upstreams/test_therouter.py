"""TheRouter's format, there and back, and against its simulator."""

from typing import Any, cast

import httpx2
import pytest

from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.domain.results import Usage
from app.upstreams.contract import (
    Call,
    FilePart,
    Finished,
    InputFile,
    JsonBody,
    MultipartBody,
    Outcome,
    RemotePicture,
    Reply,
    ReplyJson,
    Target,
    Waiting,
)
from app.upstreams.vendors.therouter import ADAPTER
from tests.simulators.therouter import TheRouter

TARGET = Target(base_url="https://vendor.test/v1", model="openai/gpt-image-2", pictures=2)
JOB = "img_uX3kQ9aB7"
LINK = f"https://media.test/{JOB}/0.png?sig=abc"


def a_reply(status: int, body: ReplyJson, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=names, body=body, is_json=body is not None)


def a_job(status: ReplyJson, **fields: ReplyJson) -> Reply:
    return a_reply(200, {"id": JOB, "object": "image_job", "status": status, **fields})


def an_error(status: int, **fields: ReplyJson) -> Reply:
    return a_reply(status, {"error": {"message": "words", **fields}})


def failure_of(reply: Reply, ticket: str | None = JOB) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        ADAPTER.read(reply, ticket)
    return caught.value


def test_a_generation_is_ordered_asynchronously_with_the_declared_parameters_only() -> None:
    request = ImageRequest(
        model="gpt-image-2",
        prompt="p",
        n=5,
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

    call = ADAPTER.submit(request, TARGET)

    assert call == Call(
        method="POST",
        url="https://vendor.test/v1/images/generations?async=true",
        body=JsonBody(
            value={
                "model": "openai/gpt-image-2",
                "prompt": "p",
                "n": 2,
                "size": "1536x864",
                "quality": "high",
                "background": "opaque",
                "output_format": "webp",
                "user": "user-1",
            }
        ),
    )


def test_auto_is_left_to_the_vendor() -> None:
    request = ImageRequest(model="gpt-image-2", prompt="p", size="auto", quality="auto")

    body = ADAPTER.submit(request, TARGET).body

    assert body == JsonBody(value={"model": "openai/gpt-image-2", "prompt": "p", "n": 2})


def test_an_edit_is_ordered_as_a_form_with_its_pictures_in_order() -> None:
    images = tuple(
        InputPicture(file_id=name, format=PictureFormat.JPEG, width_px=8, height_px=8, size_bytes=9)
        for name in ("file_a", "file_b")
    )
    request = ImageRequest(
        operation=Operation.EDIT, model="gpt-image-2", prompt="p", size="1024x1024", images=images
    )

    call = ADAPTER.submit(request, TARGET)

    assert call.url == "https://vendor.test/v1/images/edits?async=true"
    assert call.body == MultipartBody(
        fields=(("model", "openai/gpt-image-2"), ("prompt", "p"), ("n", "2"), ("size", "1024x1024")),
        files=(
            FilePart(
                name="image[]",
                filename="image-1.jpg",
                media_type="image/jpeg",
                content=InputFile("file_a"),
            ),
            FilePart(
                name="image[]",
                filename="image-2.jpg",
                media_type="image/jpeg",
                content=InputFile("file_b"),
            ),
        ),
    )


@pytest.mark.parametrize("ticket,path", [(JOB, f"jobs/{JOB}"), ("a/../b?c#d", "jobs/a%2F..%2Fb%3Fc%23d")])
def test_a_job_is_asked_after_at_the_configured_address(ticket: str, path: str) -> None:
    assert ADAPTER.resume(ticket, TARGET) == Call(method="GET", url=f"https://vendor.test/v1/{path}")


def test_an_accepted_order_waits_whatever_else_its_answer_holds() -> None:
    foreign = {"polling_url": "https://elsewhere.test/jobs/1", "expires_at": "2026-05-20T01:54:09Z"}

    accepted = [
        ADAPTER.read(a_reply(202, {"id": JOB, "status": "queued", **foreign}), None),
        ADAPTER.read(a_reply(202, {"id": JOB}), None),
    ]

    assert accepted == [Waiting(ticket=JOB, poll_after_s=5.0)] * 2


def test_an_order_that_is_finished_at_once_needs_no_question() -> None:
    done = ADAPTER.read(a_job("succeeded", unsigned_urls=[LINK]), None)
    plain = ADAPTER.read(a_reply(200, {"created": 1, "data": [{"url": LINK}]}), None)

    assert done == plain == Finished(pictures=(RemotePicture(source=LINK),))


@pytest.mark.parametrize("status", ["queued", "in_progress", "upscaling", None, 7, ["succeeded"]])
def test_every_status_that_is_not_an_end_means_waiting(status: ReplyJson) -> None:
    assert ADAPTER.read(a_job(status), JOB) == Waiting(ticket=JOB, poll_after_s=5.0)


@pytest.mark.parametrize(
    "reply",
    [
        an_error(500, code="server_error"),
        an_error(401, code="invalid_api_key"),
        an_error(429, code="rate_limit_exceeded"),
        a_reply(502, None),
        a_reply(404, None),
        a_reply(200, None),
        a_reply(200, []),
        a_reply(200, {"error": "oops"}),
    ],
)
def test_a_question_that_failed_is_asked_again(reply: Reply) -> None:
    assert ADAPTER.read(reply, JOB) == Waiting(ticket=JOB, poll_after_s=5.0)


def test_a_busy_answer_to_a_question_sets_the_pace() -> None:
    busy = a_reply(429, {"error": {"message": "slow down"}}, retry_after="30")

    assert ADAPTER.read(busy, JOB) == Waiting(ticket=JOB, poll_after_s=30.0)


def test_a_job_that_the_vendor_no_longer_knows_may_have_been_paid_for() -> None:
    assert failure_of(an_error(404, code="job_not_found")).kind is FailureKind.GARBLED


def test_both_shapes_of_a_finished_job_hold_its_links() -> None:
    other = f"https://media.test/{JOB}/1.png?sig=abc"
    pictures = (RemotePicture(source=LINK), RemotePicture(source=other))

    shape_a = ADAPTER.read(
        a_job(
            "succeeded",
            unsigned_urls=[LINK, other],
            usage={"input_tokens": 14, "output_tokens": 1756, "total_tokens": 1770},
        ),
        JOB,
    )
    shape_b = ADAPTER.read(a_job("succeeded", result={"data": [{"url": LINK}, {"url": other}]}), JOB)

    assert shape_a == Finished(pictures=pictures, usage=Usage(text_input=14, image_output=1756))
    assert shape_b == Finished(pictures=pictures)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"unsigned_urls": []},
        {"unsigned_urls": [None, ""]},
        {"unsigned_urls": "x"},
        {"result": {"data": 1}},
    ],
)
def test_a_job_that_succeeded_without_links_settles_nothing(fields: dict[str, ReplyJson]) -> None:
    assert failure_of(a_job("succeeded", **fields)).kind is FailureKind.GARBLED


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
@pytest.mark.parametrize(
    "error,kind",
    [
        (None, FailureKind.DOWN),
        ("Provider rejected the prompt", FailureKind.DOWN),
        ("Your request was rejected by the safety system.", FailureKind.REFUSED),
        ({"code": "moderation_blocked", "message": "no"}, FailureKind.REFUSED),
        ({"code": "invalid_value", "message": "no", "param": "size"}, FailureKind.INVALID),
        ({"code": "unheard_of", "message": "no", "type": "server_error"}, FailureKind.DOWN),
        ({"code": 17}, FailureKind.DOWN),
    ],
)
def test_a_job_that_ended_without_pictures_says_why(status: str, error: ReplyJson, kind: FailureKind) -> None:
    assert failure_of(a_job(status, error=error)).kind is kind


@pytest.mark.parametrize(
    "reply,kind",
    [
        (an_error(401), FailureKind.CREDENTIALS),
        (an_error(402), FailureKind.FUNDS),
        (an_error(404, code="model_not_found"), FailureKind.UNSUPPORTED),
        (an_error(400, code="moderation_blocked"), FailureKind.REFUSED),
        (an_error(503), FailureKind.DOWN),
        (a_reply(524, None), FailureKind.GARBLED),
        (a_reply(202, {"status": "queued"}), FailureKind.GARBLED),
    ],
)
def test_an_order_can_be_refused_or_settle_nothing(reply: Reply, kind: FailureKind) -> None:
    assert failure_of(reply, ticket=None).kind is kind


async def send(vendor: TheRouter, call: Call, ticket: str | None = None) -> Outcome:
    body = call.body.value if isinstance(call.body, JsonBody) else None
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.request(
            call.method, call.url, json=body, headers={"authorization": f"Bearer {vendor.api_key}"}
        )
    parsed = cast("Any", answer.json())
    return ADAPTER.read(Reply(status=answer.status_code, headers={}, body=parsed, is_json=True), ticket)


@pytest.mark.parametrize("shape", ["A", "B"])
async def test_the_simulated_vendor_is_ordered_from_polled_and_read(shape: Any) -> None:
    async with TheRouter(result_shape=shape, foreign_polling_url=True) as vendor:
        target = Target(base_url=vendor.base_url, model="openai/gpt-image-2", pictures=2)
        waiting = await send(vendor, ADAPTER.submit(ImageRequest(model="gpt-image-2", prompt="p"), target))
        assert isinstance(waiting, Waiting)
        finished = await send(vendor, ADAPTER.resume(waiting.ticket, target), waiting.ticket)

    assert isinstance(finished, Finished)
    assert [str(picture.source).startswith(vendor.files.url) for picture in finished.pictures] == [True, True]
    assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 2)
