"""OpenAI's images format, there and back: what is written, what is read, and what each error means."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.domain.results import Usage
from app.upstreams.contract import (
    Blob,
    FilePart,
    InputFile,
    JsonBody,
    MultipartBody,
    Reply,
    ReplyJson,
    Target,
)
from app.upstreams.families.openai import OpenAIImages, read_usage
from app.upstreams.vendors import xairouter

ADAPTER = OpenAIImages()
TARGET = Target(base_url="https://vendor.test/v1", model="openai/gpt-image-2", pictures=2)
PICTURE = Blob(path=Path("spool/a"), size_bytes=12)


def an_input(file_id: str, kind: PictureFormat = PictureFormat.PNG) -> InputPicture:
    return InputPicture(file_id=file_id, format=kind, width_px=8, height_px=8, size_bytes=100)


def a_reply(status: int, body: ReplyJson, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=names, body=body, is_json=body is not None)


def an_error(status: int, **fields: Any) -> Reply:
    return a_reply(
        status, {"error": {"message": "words", "type": None, "param": None, "code": None, **fields}}
    )


def failure_of(reply: Reply, adapter: OpenAIImages = ADAPTER) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        adapter.read(reply, None)
    return caught.value


def test_a_generation_sends_the_model_the_count_and_only_what_the_client_said() -> None:
    call = ADAPTER.submit(ImageRequest(model="gpt-image-2", prompt="a tea poster", n=5), TARGET)

    assert (call.method, call.url) == ("POST", "https://vendor.test/v1/images/generations")
    assert call.body == JsonBody(value={"model": "openai/gpt-image-2", "prompt": "a tea poster", "n": 2})


def test_a_generation_sends_every_parameter_under_its_own_name() -> None:
    request = ImageRequest(
        model="gpt-image-2",
        prompt="p",
        size="1536x864",
        quality="high",
        background="opaque",
        output_format="webp",
        output_compression=0,
        moderation="low",
        input_fidelity="high",
        user="user-1",
        safety_identifier="s-1",
        stream=True,
        partial_images=2,
        extra={"frame_count": 4, "style": None, "model": "another"},
    )

    body = ADAPTER.submit(request, TARGET).body

    assert body == JsonBody(
        value={
            "model": "openai/gpt-image-2",
            "prompt": "p",
            "n": 2,
            "size": "1536x864",
            "quality": "high",
            "background": "opaque",
            "output_format": "webp",
            "output_compression": 0,
            "moderation": "low",
            "user": "user-1",
            "safety_identifier": "s-1",
            "frame_count": 4,
        }
    )


def test_an_edit_of_one_picture_is_a_form_with_one_image_part() -> None:
    request = ImageRequest(
        operation=Operation.EDIT, model="m", prompt="snow", images=(an_input("file_a", PictureFormat.JPEG),)
    )

    call = ADAPTER.submit(request, TARGET)

    assert call.url == "https://vendor.test/v1/images/edits"
    assert call.body == MultipartBody(
        fields=(("model", "openai/gpt-image-2"), ("prompt", "snow"), ("n", "2")),
        files=(
            FilePart(
                name="image", filename="image-1.jpg", media_type="image/jpeg", content=InputFile("file_a")
            ),
        ),
    )


def test_an_edit_of_several_pictures_keeps_their_order_and_puts_the_mask_last() -> None:
    request = ImageRequest(
        operation=Operation.EDIT,
        model="m",
        prompt="snow",
        input_fidelity="low",
        images=(an_input("file_a"), an_input("file_b", PictureFormat.WEBP)),
        mask=an_input("file_m"),
        extra={"loud": True, "svg": {"model": "x"}},
    )

    body = ADAPTER.submit(request, TARGET).body

    assert isinstance(body, MultipartBody)
    assert [(part.name, part.filename, part.content.file_id) for part in body.files] == [
        ("image[]", "image-1.png", "file_a"),
        ("image[]", "image-2.webp", "file_b"),
        ("mask", "mask.png", "file_m"),
    ]
    assert dict(body.fields) == {
        "model": "openai/gpt-image-2",
        "prompt": "snow",
        "n": "2",
        "input_fidelity": "low",
        "loud": "true",
        "svg": '{"model":"x"}',
    }


def test_a_ticket_cannot_be_resumed() -> None:
    with pytest.raises(ValueError, match="no ticket"):
        ADAPTER.resume("job_1", TARGET)


def test_pictures_and_what_the_vendor_says_of_them_are_read() -> None:
    outcome = ADAPTER.read(
        a_reply(
            200,
            {
                "created": 1777334400,
                "background": "opaque",
                "data": [{"b64_json": PICTURE}, {"url": "https://cdn.test/b.png"}],
                "output_format": "png",
                "quality": "low",
                "size": "1024x1024",
                "usage": {
                    "input_tokens": 526,
                    "input_tokens_details": {"image_tokens": 512, "text_tokens": 14},
                    "output_tokens": 392,
                    "output_tokens_details": {"image_tokens": 392, "text_tokens": 0},
                    "total_tokens": 918,
                },
            },
        ),
        None,
    )

    assert [picture.source for picture in outcome.pictures] == [PICTURE, "https://cdn.test/b.png"]
    assert outcome.usage == Usage(text_input=14, image_input=512, image_output=392)
    assert (outcome.size, outcome.quality, outcome.background, outcome.output_format) == (
        "1024x1024",
        "low",
        "opaque",
        "png",
    )
    assert outcome.cost_usd is None


def test_a_picture_too_short_for_a_spool_file_becomes_a_data_url() -> None:
    outcome = ADAPTER.read(a_reply(200, {"data": [{"b64_json": "aGVsbG8="}]}), None)

    assert outcome.pictures[0].source == "data:application/octet-stream;base64,aGVsbG8="


def test_items_without_a_picture_are_passed_over() -> None:
    outcome = ADAPTER.read(
        a_reply(200, {"data": [{"b64_json": "not base64!"}, {}, "text", {"b64_json": PICTURE}]}), None
    )

    assert [picture.source for picture in outcome.pictures] == [PICTURE]


@pytest.mark.parametrize(
    "usage, read",
    [
        (None, None),
        ([], None),
        ({"input_tokens": 3}, None),
        ({"input_tokens": 3, "output_tokens": 0}, None),
        ({"input_tokens": -3, "output_tokens": 196}, None),
        ({"input_tokens": True, "output_tokens": 196}, None),
        ({"input_tokens": 12, "output_tokens": 196}, Usage(text_input=12, image_output=196)),
        (
            {"input_tokens": 12, "output_tokens": 200, "output_tokens_details": {"text_tokens": 4}},
            Usage(text_input=12, text_output=4, image_output=196),
        ),
        (
            {
                "input_tokens": 30,
                "output_tokens": 196,
                "input_tokens_details": {
                    "text_tokens": 10,
                    "image_tokens": 20,
                    "cached_tokens_details": {"text_tokens": 4, "image_tokens": 99},
                },
            },
            Usage(
                text_input=10, cached_text_input=4, image_input=20, cached_image_input=20, image_output=196
            ),
        ),
        (
            {
                "input_tokens": 30,
                "output_tokens": 196,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 20, "cached_tokens": 12},
            },
            Usage(
                text_input=10, cached_text_input=10, image_input=20, cached_image_input=2, image_output=196
            ),
        ),
    ],
)
def test_usage_is_read_as_far_as_it_is_told(usage: ReplyJson, read: Usage | None) -> None:
    assert read_usage(usage) == read


USER_ERROR = "image_generation_user_error"
REQUEST_ERROR = "invalid_request_error"


@pytest.mark.parametrize(
    "status, error_type, code, kind",
    [
        (400, USER_ERROR, "moderation_blocked", FailureKind.REFUSED),
        (400, REQUEST_ERROR, "content_policy_violation", FailureKind.REFUSED),
        (400, USER_ERROR, "invalid_value", FailureKind.INVALID),
        (400, REQUEST_ERROR, "invalid_value", FailureKind.INVALID),
        (400, None, "invalid_value", FailureKind.INVALID),
        (400, None, "invalid_png_output_compression", FailureKind.INVALID),
        (400, None, "invalid_input_fidelity_model", FailureKind.INVALID),
        (400, REQUEST_ERROR, "unknown_parameter", FailureKind.UNSUPPORTED),
        (400, REQUEST_ERROR, "unsupported_file_mimetype", FailureKind.INVALID),
        (400, REQUEST_ERROR, "missing_required_parameter", FailureKind.INVALID),
        (400, USER_ERROR, "billing_hard_limit_reached", FailureKind.FUNDS),
        (400, REQUEST_ERROR, "billing_hard_limit_reached", FailureKind.FUNDS),
        (400, "billing_limit_user_error", None, FailureKind.FUNDS),
        (401, REQUEST_ERROR, "invalid_api_key", FailureKind.CREDENTIALS),
        (403, REQUEST_ERROR, None, FailureKind.CREDENTIALS),
        (403, None, "unsupported_country_region_territory", FailureKind.CREDENTIALS),
        (404, REQUEST_ERROR, "model_not_found", FailureKind.UNSUPPORTED),
        (429, "input-images", "rate_limit_exceeded", FailureKind.BUSY),
        (429, "requests", "rate_limit_exceeded", FailureKind.BUSY),
        (429, "tokens", None, FailureKind.BUSY),
        (429, "rate_limit_error", "slow_down", FailureKind.BUSY),
        (429, "insufficient_quota", "insufficient_quota", FailureKind.FUNDS),
        (429, "insufficient_quota", None, FailureKind.FUNDS),
        (429, "insufficient_quota", "credit_balance_exhausted", FailureKind.FUNDS),
        (429, "insufficient_quota", "organization_spend_limit_exceeded", FailureKind.FUNDS),
        (429, "insufficient_quota", "project_spend_limit_exceeded", FailureKind.FUNDS),
        (429, "insufficient_quota", "organization_usage_limit_exceeded", FailureKind.FUNDS),
        (429, "insufficient_quota", "billing_not_active", FailureKind.FUNDS),
        (500, "server_error", None, FailureKind.DOWN),
        (500, "server_error", "server_error", FailureKind.DOWN),
        (503, "service_unavailable_error", "server_is_overloaded", FailureKind.DOWN),
        # The status decides where neither code nor type is known.
        (400, REQUEST_ERROR, "something_new", FailureKind.INVALID),
        (401, None, None, FailureKind.CREDENTIALS),
        (402, None, None, FailureKind.FUNDS),
        (404, None, None, FailureKind.UNSUPPORTED),
        (409, None, None, FailureKind.DOWN),
        (413, None, None, FailureKind.INVALID),
        (415, None, None, FailureKind.INVALID),
        (422, None, None, FailureKind.INVALID),
        (429, None, None, FailureKind.BUSY),
        (500, "new_type", "new_code", FailureKind.DOWN),
        (503, None, None, FailureKind.DOWN),
        # Statuses that no rule names, and those of an edge that gave up waiting, settle nothing.
        (408, "server_error", None, FailureKind.GARBLED),
        (418, None, None, FailureKind.GARBLED),
        (501, None, None, FailureKind.GARBLED),
        (502, "server_error", "server_error", FailureKind.GARBLED),
        (504, None, None, FailureKind.GARBLED),
        (520, None, None, FailureKind.GARBLED),
        (524, None, "rate_limit_exceeded", FailureKind.GARBLED),
        # A success that carries an error goes by its code, else the vendor says that it failed.
        (200, USER_ERROR, "moderation_blocked", FailureKind.REFUSED),
        (200, None, None, FailureKind.DOWN),
    ],
)
def test_an_error_goes_by_its_code_then_its_type_then_its_status(
    status: int, error_type: str | None, code: str | None, kind: FailureKind
) -> None:
    failure = failure_of(an_error(status, type=error_type, code=code))

    assert (failure.kind, failure.status) == (kind, status)


@pytest.mark.parametrize(
    "message, kind",
    [
        (
            "Your request was rejected by the safety system. If you believe this is an error, contact us.",
            FailureKind.REFUSED,
        ),
        ("Billing hard limit has been reached", FailureKind.FUNDS),
        ("Something else", FailureKind.INVALID),
    ],
)
def test_words_are_asked_when_code_and_type_say_nothing(message: str, kind: FailureKind) -> None:
    assert failure_of(an_error(400, message=message, type=USER_ERROR)).kind is kind


@pytest.mark.parametrize("body", [{"error": "no credit"}, {"message": "no credit"}])
def test_an_error_in_plain_text_counts_as_the_vendors_own_form(body: ReplyJson) -> None:
    assert failure_of(a_reply(402, body)).kind is FailureKind.FUNDS
    assert failure_of(a_reply(500, body)).kind is FailureKind.DOWN


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503, 504, 524, 200, 204])
def test_a_page_instead_of_a_document_settles_nothing(status: int) -> None:
    assert failure_of(a_reply(status, None, content_type="text/html")).kind is FailureKind.GARBLED


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "text",
        7,
        {"data": []},
        {"data": {}},
        {"data": [{"b64_json": ""}]},
        {"data": [{"b64_json": 7}]},
        {"error": None},
        {"error": {}},
        {"error": {"code": 7}},
        {"id": "job_1"},
    ],
)
def test_a_success_without_picture_or_error_settles_nothing(body: ReplyJson) -> None:
    assert failure_of(a_reply(200, body)).kind is FailureKind.GARBLED


def test_an_error_beside_pictures_does_not_take_them_away() -> None:
    outcome = ADAPTER.read(a_reply(200, {"data": [{"b64_json": PICTURE}], "error": {"code": "late"}}), None)

    assert len(outcome.pictures) == 1


def test_the_blamed_parameter_is_passed_on_only_when_it_looks_like_a_name() -> None:
    assert failure_of(an_error(400, code="invalid_value", param="size")).param == "size"
    assert failure_of(an_error(400, code="invalid_value", param="a sentence")).param is None
    assert failure_of(an_error(400, code="invalid_value", param={"modelId": "x"})).param is None


def test_no_words_of_the_vendor_enter_the_failure() -> None:
    reply = an_error(401, message="Incorrect API key provided: sk-secret", code="sk secret", type="a b")

    failure = failure_of(reply)

    assert "secret" not in str(failure)
    assert failure.kind is FailureKind.CREDENTIALS


def test_a_busy_vendor_says_when_to_come_back() -> None:
    busy = an_error(429, code="rate_limit_exceeded", message="Please try again in 120ms.")

    assert failure_of(busy).retry_after_s == pytest.approx(0.12)
    assert failure_of(replace(busy, headers={"retry-after": "7"})).retry_after_s == 7
    assert failure_of(an_error(429, message="Please try again in 12s.")).retry_after_s == 12
    assert failure_of(an_error(429, message="Later.")).retry_after_s is None


def test_a_vendors_own_codes_come_on_top() -> None:
    forbidden = an_error(403, code="model_not_allowed", type=REQUEST_ERROR)

    assert failure_of(forbidden, xairouter.ADAPTER).kind is FailureKind.UNSUPPORTED
    assert failure_of(forbidden).kind is FailureKind.CREDENTIALS


def test_a_call_is_plain_json() -> None:
    body = ADAPTER.submit(ImageRequest(model="m", prompt="ü"), TARGET).body

    assert isinstance(body, JsonBody)
    assert json.loads(json.dumps(body.value)) == body.value
