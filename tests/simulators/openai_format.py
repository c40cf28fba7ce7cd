"""OpenAI's images format as its server side sees it: models, checks, tokens, errors, replies.

Written anew from upstreams.md 1 (read 2026-11-21) without a line of the gateway's, so that a mistake there is not
repeated here.
"""

import base64
import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from tests.simulators.server import json_answer
from tests.simulators.wire import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What one model takes, how many tokens it uses, and what they cost."""

    factors: Mapping[str, int] | None = None
    """Quality -> f of the formula; None: the table of the older models."""
    scale: Decimal = Decimal(1)
    """Output tokens against the table's."""
    any_size: bool = False
    formats: tuple[str, ...] = ("png", "jpeg", "webp")
    fidelities: tuple[str, ...] = ("low", "high")
    transparent: bool = True
    text_usd: Decimal = Decimal(5)
    """Per million tokens, as the next two."""
    image_usd: Decimal = Decimal(8)
    out_usd: Decimal = Decimal(30)

    @property
    def qualities(self) -> tuple[str, ...]:
        """The qualities it takes, `auto` aside."""
        return tuple(self.factors) if self.factors else ("low", "medium", "high")


_TABLE: Final = {
    "low": {"1024x1024": 272, "1024x1536": 408, "1536x1024": 400},
    "medium": {"1024x1024": 1056, "1024x1536": 1584, "1536x1024": 1568},
    "high": {"1024x1024": 4160, "1024x1536": 6240, "1536x1024": 6208},
}
_CLASSIC_SIZES: Final = ("1024x1024", "1024x1536", "1536x1024")

GPT_IMAGE_2: Final = Model(
    factors={"low": 16, "medium": 48, "high": 96},
    any_size=True,
    fidelities=(),
)
GPT_IMAGE_1: Final = Model(text_usd=Decimal(5), image_usd=Decimal(10), out_usd=Decimal(40))
_GPT_IMAGE_1_5: Final = Model(out_usd=Decimal(32))
_GPT_IMAGE_1_MINI: Final = Model(
    fidelities=("low",), text_usd=Decimal(2), image_usd=Decimal("2.5"), out_usd=Decimal(8)
)
# Prices of the 2.5 and 2.6 models are not in our sources; those of gpt-image-2 stand in.
_GPT_IMAGE_2_5: Final = Model(
    factors={"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96},
    any_size=True,
    fidelities=(),
    formats=("png", "jpeg", "webp", "gif"),
)

MODELS: Final[Mapping[str, Model]] = {
    "gpt-image-2": GPT_IMAGE_2,
    "gpt-image-2-2026-04-21": GPT_IMAGE_2,
    "gpt-image-1.5": _GPT_IMAGE_1_5,
    "gpt-image-1.5-2025-12-16": _GPT_IMAGE_1_5,
    "gpt-image-1-mini": _GPT_IMAGE_1_MINI,
    "chatgpt-image-latest": _GPT_IMAGE_1_5,
    "gpt-image-2.5-sunburst": _GPT_IMAGE_2_5,
    "gpt-image-2.5-sunburst-2026-09-08": _GPT_IMAGE_2_5,
    "gpt-image-2.5-flare": _GPT_IMAGE_2_5,
    "gpt-image-2.5-flare-2026-09-08": _GPT_IMAGE_2_5,
    "gpt-image-2.6-sunburst": _GPT_IMAGE_2_5,
    "gpt-image-2.6-flare": _GPT_IMAGE_2_5,
}
RETIRED: Final = frozenset({"dall-e-2", "dall-e-3", "gpt-image-1"})

GENERATION_PARAMETERS: Final = frozenset({
    "prompt", "model", "n", "size", "quality", "background", "moderation", "output_format", "output_compression",
    "partial_images", "stream", "user", "safety_identifier", "complexity", "frame_count", "frame_duration_ms", "svg",
})  # fmt: skip
EDIT_PARAMETERS: Final = GENERATION_PARAMETERS | {"input_fidelity"}


class Refused(Exception):
    """The vendor answers with an error in its own form."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        type_: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.answer = error_answer(status, code, message, type_=type_, param=param, headers=headers)


def error_answer(
    status: int,
    code: str | None,
    message: str,
    *,
    type_: str = "invalid_request_error",
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Answer in the envelope; all four keys are always there."""
    return json_answer(
        {"error": {"message": message, "type": type_, "param": param, "code": code}}, status, headers
    )


# kind of step -> status, type, code, message
_PLAIN_ERRORS: Final[Mapping[str, tuple[int, str, str | None, str]]] = {
    "insufficient_quota": (
        429, "insufficient_quota", "insufficient_quota",
        ("You exceeded your current quota, please check your plan and billing details. For more information on this "
         "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."),
    ),
    "credit_balance_exhausted": (429, "insufficient_quota", "credit_balance_exhausted", "No credit is left."),
    "organization_spend_limit_exceeded": (
        429, "insufficient_quota", "organization_spend_limit_exceeded", "The organization's spend limit is reached.",
    ),
    "project_spend_limit_exceeded": (
        429, "insufficient_quota", "project_spend_limit_exceeded", "The project's spend limit is reached.",
    ),
    "organization_usage_limit_exceeded": (
        429, "insufficient_quota", "organization_usage_limit_exceeded", "The organization's usage limit is reached.",
    ),
    "billing_not_active": (
        429, "insufficient_quota", "billing_not_active", "Your account is not active, please check your billing.",
    ),
    "billing_hard_limit_reached": (
        400, "image_generation_user_error", "billing_hard_limit_reached", "Billing hard limit has been reached",
    ),
    "402": (402, "invalid_request_error", None, "Insufficient credits."),
    "401": (
        401, "invalid_request_error", "invalid_api_key",
        ("Incorrect API key provided: sk-…abcd. You can find your API key at "
         "https://platform.openai.com/account/api-keys."),
    ),
    "403": (
        403, "invalid_request_error", None,
        ("Your organization must be verified to use the model `gpt-image-2`. Please go to: "
         "https://platform.openai.com/settings/organization/general and click on Verify Organization. If you just "
         "verified, it can take up to 15 minutes for access to propagate."),
    ),
    "unsupported_country": (
        403, "invalid_request_error", "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    "404": (
        404, "invalid_request_error", "model_not_found",
        "The model `x` does not exist or you do not have access to it.",
    ),
    "409": (409, "server_error", None, "The request conflicts with another one."),
    "slow_down": (429, "rate_limit_error", "slow_down", "Slow down."),
    "500": (
        500, "server_error", "server_error",
        "The server had an error while processing your request. Sorry about that!",
    ),
    "503": (503, "service_unavailable_error", "server_is_overloaded", "The server is overloaded."),
    "content_policy_violation": (
        400, "invalid_request_error", "content_policy_violation",
        "Your request was rejected as a result of our safety system.",
    ),
}  # fmt: skip

REFUSALS: Final = frozenset({
    *_PLAIN_ERRORS, "429", "invalid_value", "unknown_parameter", "moderation_blocked", "error_in_200", "envelope",
})  # fmt: skip
"""The kinds of step that answer with an error in the vendor's own form."""


def refusal(kind: str, argument: str | None) -> Answer | None:
    """Answer with the error of this kind; None when the kind is no refusal.

    `429:TEXT` puts TEXT into `retry-after`; `envelope:STATUS` has no code; others take the parameter they blame.
    """
    if kind in _PLAIN_ERRORS:
        status, type_, code, message = _PLAIN_ERRORS[kind]
        headers = {"retry-after": argument} if argument is not None else {}
        return error_answer(status, code, message, type_=type_, headers=headers)
    match kind:
        case "429":
            return _rate_limited(argument)
        case "invalid_value":
            name = argument or "size"
            return error_answer(
                400,
                "invalid_value",
                f"Invalid value: 'x'. Supported values are: 'y' for {name}.",
                type_="image_generation_user_error",
                param=name,
            )
        case "unknown_parameter":
            name = argument or "moderation"
            return error_answer(400, "unknown_parameter", f"Unknown parameter: '{name}'.", param=name)
        case "moderation_blocked":
            return moderation_blocked(argument or "input")
        case "error_in_200":
            return error_answer(200, "server_error", "The server had an error.", type_="server_error")
        case "envelope":
            return error_answer(int(argument or 500), None, "Something went wrong.", type_="unheard_of_error")
        case _:
            return None


def moderation_blocked(stage: str) -> Answer:
    """Answer that the safety system rejected the prompt (`input`) or the picture (`output`)."""
    message = (
        "Your request was rejected by the safety system. If you believe this is an error, contact us at "
        f"help.openai.com and include the request ID {uuid.uuid4()}. safety_violations=[sexual]."
    )
    return json_answer(
        {
            "error": {
                "message": message,
                "type": "image_generation_user_error",
                "param": None,
                "code": "moderation_blocked",
                "moderation_details": {"moderation_stage": stage, "categories": ["sexual"]},
            }
        },
        400,
    )


def _rate_limited(argument: str | None) -> Answer:
    headers = {"x-ratelimit-remaining-input-images": "0"}
    if argument is not None and argument.startswith("ms="):
        headers["retry-after-ms"] = argument.removeprefix("ms=")
    elif argument is not None and not argument.startswith("text="):
        headers["retry-after"] = argument
    wait = argument.removeprefix("text=") if argument and argument.startswith("text=") else "12s"
    return error_answer(
        429,
        "rate_limit_exceeded",
        "Rate limit reached for gpt-image-2 (for limit gpt-image) in organization org-x on input-images per min: "
        f"Limit 5, Used 5, Requested 1. Please try again in {wait}.",
        type_="input-images",
        headers=headers,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request that passed every check, with `auto` resolved."""

    model_name: str
    model: Model
    prompt: str
    n: int
    width_px: int
    height_px: int
    quality: str
    background: str
    output_format: str
    output_compression: int
    partial_images: int
    stream: bool
    input_pictures: int = 0
    safety_identifier: str | None = None

    @property
    def size(self) -> str:
        """`WIDTHxHEIGHT`."""
        return f"{self.width_px}x{self.height_px}"


def check(
    given: Mapping[str, Any],
    models: Mapping[str, Model],
    *,
    known: frozenset[str],
    default_model: str | None,
    input_pictures: int = 0,
) -> Order:
    """Check the parameters in the vendor's order: prompt, model, size, and then the rest.

    Raises:
        Refused: one is wrong.
    """
    values = {name: value for name, value in given.items() if value is not None}
    for name in values:
        if name not in known:
            raise Refused(400, "unknown_parameter", f"Unknown parameter: '{name}'.", param=name)
    prompt = values.get("prompt", "")
    if not isinstance(prompt, str) or not prompt:
        raise Refused(
            400, "missing_required_parameter", "Missing required parameter: 'prompt'.", param="prompt"
        )
    if len(prompt) > 32_000:
        raise Refused(
            400,
            "string_above_max_length",
            f"Invalid 'prompt': string too long. Expected a string with maximum length 32000, but got a string with "
            f"length {len(prompt)} instead.",
            param="prompt",
        )
    wanted = values.get("model", default_model)
    if wanted is None:
        raise Refused(
            400, "missing_required_parameter", "Missing required parameter: 'model'.", param="model"
        )
    model_name = str(wanted)
    model = _model(model_name, models)
    width_px, height_px = _size(values.get("size", "auto"), model)
    quality = _one_of("quality", values.get("quality", "auto"), (*model.qualities, "auto"))
    background = _one_of("background", values.get("background", "auto"), ("transparent", "opaque", "auto"))
    output_format = _one_of("output_format", values.get("output_format", "png"), model.formats)
    _one_of("moderation", values.get("moderation", "auto"), ("low", "auto"))
    if background == "transparent" and not model.transparent:
        raise _user_error("background", "Transparent background is not supported for this model.")
    if background == "transparent" and output_format not in {"png", "webp"}:
        raise Refused(
            400,
            "invalid_value",
            f"Transparent background is not supported for {output_format.upper()} output format",
            param="background",
        )
    compression = _count("output_compression", values.get("output_compression", 100), 0, 100)
    if compression < 100 and output_format == "png":
        raise Refused(
            400,
            "invalid_png_output_compression",
            "Compression less than 100 is not supported for PNG output format",
            param="output_compression",
        )
    n = _count("n", values.get("n", 1), 1, 10)
    fidelity = values.get("input_fidelity")
    if fidelity is not None and fidelity not in model.fidelities:
        raise Refused(
            400,
            "invalid_input_fidelity_model" if not model.fidelities else "invalid_value",
            f"input_fidelity {fidelity!r} is not supported by {model_name}.",
            param="input_fidelity",
        )
    stream = values.get("stream", False)
    if not isinstance(stream, bool):
        raise Refused(400, "invalid_type", "Invalid type for 'stream': expected a boolean.", param="stream")
    return Order(
        model_name=model_name,
        model=model,
        prompt=prompt,
        n=n,
        width_px=width_px,
        height_px=height_px,
        # Recorded replies resolve `auto` to low.
        quality="low" if quality == "auto" else quality,
        background="opaque" if background == "auto" else background,
        output_format=output_format,
        output_compression=compression,
        partial_images=_count("partial_images", values.get("partial_images", 0), 0, 3),
        stream=stream,
        input_pictures=input_pictures,
        safety_identifier=values.get("safety_identifier", values.get("user")),
    )


def form_values(fields: Mapping[str, str]) -> dict[str, Any]:
    """Read a form's text parts: integers are decimal text, booleans the words.

    Raises:
        Refused: a text is neither.
    """
    values: dict[str, Any] = dict(fields)
    for name in {"n", "output_compression", "partial_images"} & values.keys():
        if not fields[name].isdecimal():
            raise Refused(400, "invalid_type", f"Invalid type for '{name}': expected an integer.", param=name)
        values[name] = int(fields[name])
    if fields.get("stream") in {"true", "false"}:
        values["stream"] = fields["stream"] == "true"
    return values


def output_tokens(order: Order) -> int:
    """Tokens of one picture (upstreams.md 1.14)."""
    if order.model.factors is None:
        return _TABLE[order.quality][order.size]
    factor = order.model.factors[order.quality]
    pixels = order.width_px * order.height_px
    long, short = max(order.width_px, order.height_px), min(order.width_px, order.height_px)
    lines = math.floor(factor * short / long + 0.5)
    # In integers, rounded up: the float quotient could fall on the wrong side.
    return -(-(factor * lines * (2_000_000 + pixels)) // 4_000_000)


def usage(order: Order, *, pictures: int, partials: int = 0) -> dict[str, Any]:
    """Count the tokens of a whole request."""
    text, image = max(1, len(order.prompt) // 4), 512 * order.input_pictures
    out = output_tokens(order) * pictures + 100 * partials
    return {
        "input_tokens": text + image,
        "input_tokens_details": {"image_tokens": image, "text_tokens": text},
        "output_tokens": out,
        "output_tokens_details": {"image_tokens": out, "text_tokens": 0},
        "total_tokens": text + image + out,
    }


def cost_usd(model: Model, tokens: Mapping[str, Any]) -> Decimal:
    """What the vendor bills for these tokens."""
    details = tokens["input_tokens_details"]
    micros: Decimal = (
        details["text_tokens"] * model.text_usd
        + details["image_tokens"] * model.image_usd
        + tokens["output_tokens"] * model.out_usd
    )
    return micros / 1_000_000


def reply_pieces(order: Order, encoded: list[bytes], created: int) -> list[bytes]:
    """Write the response object around pictures in base64, without copying them."""
    rest: dict[str, Any] = {
        "created": created,
        "background": order.background,
        "output_format": order.output_format,
        "quality": order.quality,
        "size": order.size,
        "usage": usage(order, pictures=len(encoded)),
    }
    if order.safety_identifier is not None:
        rest["safety_identifier"] = order.safety_identifier
    pieces = [b'{"data": [']
    for place, picture in enumerate(encoded):
        pieces += [b', {"b64_json": "' if place else b'{"b64_json": "', picture, b'"}']
    return [*pieces, b"], ", json.dumps(rest).encode()[1:]]


def data_url(text: str) -> bytes | None:
    """Decode a base64 data URL; None when it is none."""
    head, comma, encoded = text.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64") or not comma:
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return None


def _model(name: str, models: Mapping[str, Model]) -> Model:
    if name in RETIRED and name not in models:
        raise Refused(404, "model_not_found", f"The model `{name}` has been deprecated.")
    if name not in models:
        raise Refused(
            404, "model_not_found", f"The model `{name}` does not exist or you do not have access to it."
        )
    return models[name]


def _size(size: object, model: Model) -> tuple[int, int]:
    if size == "auto":
        return 1024, 1024
    width, by, height = str(size).partition("x")
    if model.any_size and by and width.isdecimal() and height.isdecimal():
        _check_dimensions(str(size), int(width), int(height))
    elif size not in _CLASSIC_SIZES:
        raise Refused(
            400,
            "invalid_value",
            f"Invalid value: '{size}'. Supported values are: '1024x1024', '1024x1536', '1536x1024', and 'auto'.",
            param="size",
        )
    return int(width), int(height)


def _check_dimensions(size: str, width: int, height: int) -> None:
    pixels = width * height
    if width % 16 or height % 16:
        problem = "Width and height must both be divisible by 16."
    elif max(width, height) > 3840:
        problem = "The longest edge must be less than or equal to 3840."
    elif max(width, height) > 3 * min(width, height):
        problem = "The aspect ratio must be between 1:3 and 3:1."
    elif pixels < 655_360:
        problem = "Requested resolution is below the current minimum pixel budget."
    elif pixels > 8_294_400:
        problem = "Requested resolution exceeds the current pixel budget."
    else:
        return
    raise _user_error("size", f"Invalid size '{size}'. {problem}")


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        *most, last = (f"'{word}'" for word in allowed)
        raise Refused(
            400,
            "invalid_value",
            f"Invalid value: '{value}'. Supported values are: {', '.join(most)}, and {last}.",
            param=name,
        )
    return str(value)


def _count(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(400, "invalid_type", f"Invalid type for '{name}': expected an integer.", param=name)
    if not low <= value <= high:
        raise Refused(
            400,
            "invalid_value",
            f"Invalid '{name}': expected a value between {low} and {high}, but got {value} instead.",
            param=name,
        )
    return value


def _user_error(param: str, message: str) -> Refused:
    return Refused(400, "invalid_value", message, type_="image_generation_user_error", param=param)
