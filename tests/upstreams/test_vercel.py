"""Vercel AI Gateway's format, there and back."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.domain.results import Usage
from app.kit.json import Json
from app.upstreams.contract import Call, Finished, InputDataUrl, JsonBody, Reply, ReplyJson, Target
from app.upstreams.vendors.vercel import ADAPTER

TARGET = Target(base_url="https://vendor.test/v1", model="openai/gpt-image-2", pictures=2)
REQUEST = ImageRequest(model="gpt-image-2", prompt="p", n=5)
PICTURE: ReplyJson = {"b64_json": "aGVsbG8="}


def an_input(file_id: str, form: PictureFormat) -> InputPicture:
    return InputPicture(file_id=file_id, format=form, width_px=8, height_px=8, size_bytes=9)


def a_reply(status: int, body: ReplyJson, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=names, body=body, is_json=body is not None)


def an_error(status: int, message: str = "words", **fields: ReplyJson) -> Reply:
    return a_reply(status, {"error": {"message": message, **fields}, "generationId": "gen_1"})


def body_of(request: ImageRequest) -> dict[str, Any]:
    body = ADAPTER.submit(request, TARGET).body
    assert isinstance(body, JsonBody)
    return dict(body.value)


def failure_of(reply: Reply) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        ADAPTER.read(reply, None)
    return caught.value


def test_a_generation_is_openais_with_the_rest_under_provider_options() -> None:
    request = replace(
        REQUEST,
        size="1536x864",
        quality="high",
        background="opaque",
        output_format="webp",
        output_compression=50,
        moderation="low",
        user="user-1",
        extra={"frame_count": 4},
    )

    assert ADAPTER.submit(request, TARGET) == Call(
        method="POST",
        url="https://vendor.test/v1/images/generations",
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
                "frame_count": 4,
                "providerOptions": {"openai": {"moderation": "low", "outputCompression": 50}},
            }
        ),
    )


def test_what_the_client_left_open_is_left_to_the_vendor() -> None:
    assert body_of(replace(REQUEST, size="auto", quality="auto")) == {
        "model": "openai/gpt-image-2",
        "prompt": "p",
        "n": 2,
    }


def test_a_clients_own_provider_options_are_passed_on_beside_ours() -> None:
    own: Json = {"gateway": {"only": ["openai"]}, "openai": {"style": "x", "moderation": "auto"}}
    request = replace(REQUEST, extra={"providerOptions": own})

    assert body_of(request)["providerOptions"] == own
    assert body_of(replace(request, moderation="low"))["providerOptions"] == {
        "gateway": {"only": ["openai"]},
        "openai": {"style": "x", "moderation": "low"},
    }


def test_provider_options_that_are_no_object_are_the_clients_mistake() -> None:
    with pytest.raises(UpstreamFailure) as caught:
        ADAPTER.submit(replace(REQUEST, extra={"providerOptions": "fast"}), TARGET)

    assert (caught.value.kind, caught.value.param) == (FailureKind.INVALID, "providerOptions")


def test_an_edit_is_json_with_its_inputs_and_mask_as_data_urls() -> None:
    request = replace(
        REQUEST,
        operation=Operation.EDIT,
        images=(an_input("file_a", PictureFormat.PNG), an_input("file_b", PictureFormat.JPEG)),
        mask=an_input("file_m", PictureFormat.PNG),
        input_fidelity="high",
        moderation="low",
    )

    call = ADAPTER.submit(request, TARGET)

    assert call.url == "https://vendor.test/v1/images/edits"
    assert call.body == JsonBody(
        value={
            "model": "openai/gpt-image-2",
            "prompt": "p",
            "n": 2,
            "input_fidelity": "high",
            "providerOptions": {"openai": {"moderation": "low"}},
            "images": [
                {"image_url": InputDataUrl("file_a", "image/png")},
                {"image_url": InputDataUrl("file_b", "image/jpeg")},
            ],
            "mask": {"image_url": InputDataUrl("file_m", "image/png")},
        }
    )


def test_nothing_of_this_vendor_is_asked_after() -> None:
    with pytest.raises(ValueError, match="no ticket"):
        ADAPTER.resume("job_1", TARGET)


@pytest.mark.parametrize("name", ["providerMetadata", "provider_metadata"])
@pytest.mark.parametrize("cost", ["0.21", 0.21])
def test_pictures_come_with_their_tokens_and_their_cost(name: str, cost: ReplyJson) -> None:
    usage: ReplyJson = {"input_tokens": 12, "output_tokens": 7024, "total_tokens": 7036}
    body: ReplyJson = {"created": 1, "data": [PICTURE], "usage": usage, name: {"gateway": {"cost": cost}}}

    finished = ADAPTER.read(a_reply(200, body), None)

    assert isinstance(finished, Finished)
    assert len(finished.pictures) == 1
    assert finished.usage == Usage(text_input=12, image_output=7024)
    assert finished.cost_usd == Decimal("0.21")


@pytest.mark.parametrize(
    "metadata", [None, 7, {}, {"gateway": None}, {"gateway": {}}, {"gateway": {"cost": "dear"}}]
)
def test_pictures_without_a_cost_are_pictures(metadata: ReplyJson) -> None:
    finished = ADAPTER.read(a_reply(200, {"data": [PICTURE], "providerMetadata": metadata}), None)

    assert isinstance(finished, Finished)
    assert (finished.usage, finished.cost_usd) == (None, None)


@pytest.mark.parametrize(
    "status,type_,kind",
    [
        (400, "invalid_request_error", FailureKind.INVALID),
        (401, "authentication_error", FailureKind.CREDENTIALS),
        (402, "insufficient_funds", FailureKind.FUNDS),
        (403, "forbidden", FailureKind.CREDENTIALS),
        (404, "model_not_found", FailureKind.UNSUPPORTED),
        (424, "failed_dependency", FailureKind.DOWN),
        (429, "rate_limit_exceeded", FailureKind.BUSY),
        (500, "internal_server_error", FailureKind.DOWN),
        (402, "unheard_of", FailureKind.FUNDS),
        (504, "internal_server_error", FailureKind.GARBLED),
    ],
)
@pytest.mark.parametrize("code", [None, 17, "="])
@pytest.mark.parametrize("param", [None, {"modelId": "m"}, {"ruleId": "r", "statusCode": "x"}])
def test_an_error_of_the_gateways_own_is_known_by_its_type(
    status: int, type_: str, kind: FailureKind, code: ReplyJson, param: ReplyJson
) -> None:
    written = type_ if code == "=" else code
    assert failure_of(an_error(status, type=type_, code=written, param=param)).kind is kind


@pytest.mark.parametrize("status", [400, 402, 403, 429])
@pytest.mark.parametrize("type_", ["forbidden", "AI_APICallError", None])
@pytest.mark.parametrize(
    "message,kind",
    [
        ("AI Gateway requires a valid credit card on file to service requests.", FailureKind.FUNDS),
        ("Free tier users do not have access to this model.", FailureKind.CREDENTIALS),
    ],
)
def test_what_ails_our_account_is_known_by_its_words(
    status: int, type_: str | None, message: str, kind: FailureKind
) -> None:
    assert failure_of(an_error(status, message, type=type_, param={"statusCode": 400})).kind is kind


@pytest.mark.parametrize(
    "provider,message,kind",
    [
        (400, "Invalid size", FailureKind.INVALID),
        (400, "Your request was rejected by the safety system.", FailureKind.REFUSED),
        (401, "Incorrect API key provided", FailureKind.DOWN),
        (402, "No credit", FailureKind.DOWN),
        (403, "Organization must be verified", FailureKind.DOWN),
        (404, "No such model", FailureKind.UNSUPPORTED),
        (429, "Rate limit reached", FailureKind.BUSY),
        (500, "The server had an error", FailureKind.DOWN),
        (504, "Timed out", FailureKind.GARBLED),
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_an_error_that_is_passed_on_means_what_the_provider_meant(
    status: int, provider: int, message: str, kind: FailureKind
) -> None:
    param: ReplyJson = {"statusCode": provider, "isRetryable": True}
    reply = an_error(status, message, type="AI_APICallError", code=provider, param=param)

    assert failure_of(reply).kind is kind


def test_the_providers_empty_account_is_not_ours() -> None:
    reply = an_error(429, type="AI_APICallError", code="insufficient_quota", param={"statusCode": 429})

    assert failure_of(reply).kind is FailureKind.DOWN


def test_a_busy_gateway_says_when_to_come_back() -> None:
    error: ReplyJson = {"error": {"message": "slow", "type": "rate_limit_exceeded"}}

    assert failure_of(a_reply(429, error, retry_after="7")).retry_after_s == 7.0


@pytest.mark.parametrize(
    "reply",
    [
        a_reply(502, None),
        a_reply(403, None),
        a_reply(200, None),
        a_reply(200, {"data": []}),
        a_reply(500, {"detail": "x"}),
    ],
)
def test_an_answer_in_no_known_form_settles_nothing(reply: Reply) -> None:
    assert failure_of(reply).kind is FailureKind.GARBLED
