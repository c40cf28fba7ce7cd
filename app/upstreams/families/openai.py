"""OpenAI's images format: generations as JSON, edits as a form, the pictures in the answer.

Source: upstreams.md 1, read 2026-11-21; the tables of codes are its section 1.11, the kinds its section 8.3.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.domain.results import Usage
from app.kit.json import Json
from app.kit.retry_after import retry_after_s
from app.upstreams.contract import (
    Blob,
    Call,
    FilePart,
    Finished,
    InputFile,
    JsonBody,
    MultipartBody,
    Partial,
    RemotePicture,
    Reply,
    ReplyJson,
    ServerEvent,
    Target,
)

CODES: Final[Mapping[str, FailureKind]] = {
    "moderation_blocked": FailureKind.REFUSED,
    "content_policy_violation": FailureKind.REFUSED,
    "invalid_value": FailureKind.INVALID,
    "invalid_png_output_compression": FailureKind.INVALID,
    "invalid_input_fidelity_model": FailureKind.INVALID,
    "unsupported_file_mimetype": FailureKind.INVALID,
    "missing_required_parameter": FailureKind.INVALID,
    "unknown_parameter": FailureKind.UNSUPPORTED,
    "model_not_found": FailureKind.UNSUPPORTED,
    "invalid_api_key": FailureKind.CREDENTIALS,
    "unsupported_country_region_territory": FailureKind.CREDENTIALS,
    "billing_hard_limit_reached": FailureKind.FUNDS,
    "insufficient_quota": FailureKind.FUNDS,
    "credit_balance_exhausted": FailureKind.FUNDS,
    "organization_spend_limit_exceeded": FailureKind.FUNDS,
    "project_spend_limit_exceeded": FailureKind.FUNDS,
    "organization_usage_limit_exceeded": FailureKind.FUNDS,
    "billing_not_active": FailureKind.FUNDS,
    "rate_limit_exceeded": FailureKind.BUSY,
    "slow_down": FailureKind.BUSY,
    "server_error": FailureKind.DOWN,
    "server_is_overloaded": FailureKind.DOWN,
}
"""The vendor's machine code -> what it means."""

TYPES: Final[Mapping[str, FailureKind]] = {
    "insufficient_quota": FailureKind.FUNDS,
    "billing_limit_user_error": FailureKind.FUNDS,
    "authentication_error": FailureKind.CREDENTIALS,
    "permission_error": FailureKind.CREDENTIALS,
    "rate_limit_error": FailureKind.BUSY,
    "requests": FailureKind.BUSY,
    "tokens": FailureKind.BUSY,
    "input-images": FailureKind.BUSY,
    "server_error": FailureKind.DOWN,
    "service_unavailable_error": FailureKind.DOWN,
}
"""The error's type -> what it means, where it has no known code.

`invalid_request_error` and `image_generation_user_error` are absent: they come with rejected keys, empty accounts
and wrong requests alike.
"""

STATUSES: Final[Mapping[int, FailureKind]] = {
    # A success that carries an error instead of pictures (upstreams.md 8.3).
    200: FailureKind.DOWN,
    400: FailureKind.INVALID,
    401: FailureKind.CREDENTIALS,
    402: FailureKind.FUNDS,
    403: FailureKind.CREDENTIALS,
    404: FailureKind.UNSUPPORTED,
    409: FailureKind.DOWN,
    413: FailureKind.INVALID,
    415: FailureKind.INVALID,
    422: FailureKind.INVALID,
    429: FailureKind.BUSY,
    500: FailureKind.DOWN,
    503: FailureKind.DOWN,
}
"""The status of an error in the vendor's own form -> what it means, where neither code nor type is known."""

WORDS: Final[tuple[tuple[str, FailureKind], ...]] = (
    # "Your request was rejected by the safety system. If you believe this is an error, contact us at ..."
    ("rejected by the safety system", FailureKind.REFUSED),
    # "Billing hard limit has been reached"
    ("billing hard limit has been reached", FailureKind.FUNDS),
)
"""Words of a message -> what it means; asked last before the status. The samples are from upstreams.md 1.11."""

# Whoever answers with these is an edge or gave up waiting: the order may have been carried out behind it.
_SETTLES_NOTHING: Final = frozenset({408, 502, 504, *range(520, 528)})

# "... Limit 5, Used 5, Requested 1. Please try again in 12s." and "... in 120ms."
_TRY_AGAIN: Final = re.compile(r"try again in ([0-9]+(?:\.[0-9]+)?)(ms|s)\b")

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-\[\]]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorError:
    """An error in the vendor's own form, read as far as it goes; None where a field says nothing."""

    code: str | None
    type: str | None
    param: str | None
    message: str


class OpenAIImages:
    """The adapter for every vendor that speaks this format.

    `codes`, `types` and `words` add what one vendor says beyond it.
    """

    def __init__(
        self,
        *,
        codes: Mapping[str, FailureKind] | None = None,
        types: Mapping[str, FailureKind] | None = None,
        words: tuple[tuple[str, FailureKind], ...] = (),
    ) -> None:
        self._codes = {**CODES, **(codes or {})}
        self._types = {**TYPES, **(types or {})}
        self._words = (*words, *WORDS)

    def submit(self, request: ImageRequest, target: Target) -> Call:
        """Write a generation as JSON, an edit as a form. Only what the client said is sent, and the model and count."""
        fields = _fields(request, target)
        if request.operation is Operation.EDIT:
            body = MultipartBody(
                fields=tuple((name, _form_text(value)) for name, value in fields.items()),
                files=_files(request),
            )
            return Call(method="POST", url=f"{target.base_url}/images/edits", body=body)
        return Call(method="POST", url=f"{target.base_url}/images/generations", body=JsonBody(value=fields))

    def resume(self, ticket: str, target: Target) -> Call:
        """Refuse: this format answers at once and hands out no tickets.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{target.base_url!r} answers at once; it hands out no ticket such as {ticket!r}")

    def read(self, reply: Reply, ticket: str | None) -> Finished:  # noqa: ARG002 - this format has no tickets
        """Read the pictures, or say why there are none.

        Raises:
            UpstreamFailure: the answer made no picture.
        """
        body = reply.body
        if 200 <= reply.status < 300 and isinstance(body, dict):
            pictures = _pictures(body.get("data"))
            if pictures:
                return Finished(
                    pictures=pictures,
                    usage=read_usage(body.get("usage")),
                    size=_text(body, "size"),
                    quality=_text(body, "quality"),
                    background=_text(body, "background"),
                    output_format=_text(body, "output_format"),
                )
        raise self.failure(reply)

    def read_event(self, event: ServerEvent) -> Partial | Finished | None:
        """Read `image_generation.partial_image`, `.completed` and their twins of edits; each holds one picture.

        Raises:
            UpstreamFailure: the event is an error. It comes in the vendor's own form, so nothing was bought.
        """
        data = event.data
        if not isinstance(data, dict):
            return None
        if data.get("error"):
            raise self.failure(Reply(status=200, headers={}, body=data, is_json=True))
        kind = data.get("type")
        pictures = _pictures([data])
        if not isinstance(kind, str) or not pictures:
            return None
        if kind.endswith(".partial_image"):
            index = data.get("partial_image_index")
            return Partial(picture=pictures[0], index=index if isinstance(index, int) else 0)
        if not kind.endswith(".completed"):
            return None
        return Finished(
            pictures=pictures,
            usage=read_usage(data.get("usage")),
            size=_text(data, "size"),
            quality=_text(data, "quality"),
            background=_text(data, "background"),
            output_format=_text(data, "output_format"),
        )

    def failure(self, reply: Reply) -> UpstreamFailure:
        """Say what an answer without pictures means: by its code, then its type, then its words, then its status."""
        error = None if reply.status in _SETTLES_NOTHING else read_error(reply.body)
        if error is None:
            return UpstreamFailure(
                FailureKind.GARBLED,
                f"HTTP {reply.status} with neither pictures nor an error in the vendor's form",
                status=reply.status,
            )
        kind = self._kind(error, reply.status)
        return UpstreamFailure(
            kind,
            f"HTTP {reply.status}, code {error.code!r}, type {error.type!r}",
            retry_after_s=_wait_s(reply, error) if kind in {FailureKind.BUSY, FailureKind.DOWN} else None,
            param=error.param,
            status=reply.status,
        )

    def _kind(self, error: VendorError, status: int) -> FailureKind:
        if error.code in self._codes:
            return self._codes[error.code]
        if error.type in self._types:
            return self._types[error.type]
        message = error.message.lower()
        for words, kind in self._words:
            if words in message:
                return kind
        return STATUSES.get(status, FailureKind.GARBLED)


def read_error(body: ReplyJson) -> VendorError | None:
    """Find an error in OpenAI's envelope, or one of the plain forms `{"error": "..."}` and `{"message": "..."}`.

    None when the document is no such error. `code`, `type` and `param` are kept only where they look like names.
    """
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, dict) and any(
        isinstance(error.get(key), str) for key in ("message", "code", "type")
    ):
        message = error.get("message")
        return VendorError(
            code=_identifier(error.get("code")),
            type=_identifier(error.get("type")),
            param=_identifier(error.get("param")),
            message=message if isinstance(message, str) else "",
        )
    plain = error if error is not None else body.get("message")
    return VendorError(code=None, type=None, param=None, message=plain) if isinstance(plain, str) else None


def read_usage(value: ReplyJson) -> Usage | None:
    """Read the tokens of all pictures together; None when they are absent, or no possible count for a picture made.

    Without details all input counts as text and all output as picture. Cached tokens that come without details are
    taken to be text first, which is the dearer reading.
    """
    if not isinstance(value, dict):
        return None
    input_tokens, output_tokens = _count(value, "input_tokens"), _count(value, "output_tokens")
    if input_tokens is None or not output_tokens:
        return None
    details = _object(value, "input_tokens_details")
    text, image = _count(details, "text_tokens"), _count(details, "image_tokens")
    if text is None and image is None:
        text = input_tokens
    text, image = text or 0, image or 0
    made_text = min(_count(_object(value, "output_tokens_details"), "text_tokens") or 0, output_tokens)
    cached_details = _object(details, "cached_tokens_details")
    cached_text, cached_image = _count(cached_details, "text_tokens"), _count(cached_details, "image_tokens")
    if cached_text is None and cached_image is None:
        cached = _count(details, "cached_tokens") or 0
        cached_text, cached_image = min(cached, text), max(0, cached - text)
    return Usage(
        text_input=text,
        cached_text_input=min(cached_text or 0, text),
        image_input=image,
        cached_image_input=min(cached_image or 0, image),
        text_output=made_text,
        image_output=output_tokens - made_text,
    )


def _fields(request: ImageRequest, target: Target) -> dict[str, Json]:
    edits = request.operation is Operation.EDIT
    known: dict[str, Json] = {
        "model": target.model,
        "prompt": request.prompt,
        "n": target.pictures,
        "size": request.size,
        "quality": request.quality,
        "background": request.background,
        "output_format": request.output_format,
        "output_compression": request.output_compression,
        "moderation": request.moderation,
        "input_fidelity": request.input_fidelity if edits else None,
        "user": request.user,
        "safety_identifier": request.safety_identifier,
        "stream": True if target.is_streamed else None,
        "partial_images": request.partial_images if target.is_streamed else None,
    }
    # What the catalog knows wins over what was passed on; null means "not given" to this vendor.
    return {name: value for name, value in {**known, **request.extra, **known}.items() if value is not None}


def _form_text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _files(request: ImageRequest) -> tuple[FilePart, ...]:
    name = "image" if len(request.images) == 1 else "image[]"
    parts = [_file(name, f"image-{place}", picture) for place, picture in enumerate(request.images, start=1)]
    if request.mask is not None:
        parts.append(_file("mask", "mask", request.mask))
    return tuple(parts)


def _file(name: str, stem: str, picture: InputPicture) -> FilePart:
    return FilePart(
        name=name,
        filename=stem + picture.format.suffix,
        media_type=picture.format.media_type,
        content=InputFile(picture.file_id),
    )


def _pictures(data: ReplyJson) -> tuple[RemotePicture, ...]:
    items = data if isinstance(data, list) else []
    sources = [_source(item) for item in items if isinstance(item, dict)]
    return tuple(RemotePicture(source=source) for source in sources if source is not None)


def _source(item: Mapping[str, ReplyJson]) -> Blob | str | None:
    for value in (item.get("b64_json"), item.get("url")):
        if isinstance(value, Blob):
            return value
    encoded, link = item.get("b64_json"), item.get("url")
    if isinstance(encoded, str) and encoded:
        return _short_picture(encoded)
    return link if isinstance(link, str) and link else None


def _short_picture(encoded: str) -> str | None:
    # A string too short for a spool file is still a picture: as a data URL it is a link to its own bytes.
    if encoded.startswith("data:"):
        return encoded
    try:
        base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return f"data:application/octet-stream;base64,{encoded}"


def _wait_s(reply: Reply, error: VendorError) -> float | None:
    said = retry_after_s(reply.headers)
    if said is not None:
        return said
    match = _TRY_AGAIN.search(error.message)
    if match is None:
        return None
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def _identifier(value: ReplyJson) -> str | None:
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else None


def _text(body: Mapping[str, ReplyJson], name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) and value else None


def _object(body: Mapping[str, ReplyJson], name: str) -> Mapping[str, ReplyJson]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _count(body: Mapping[str, ReplyJson], name: str) -> int | None:
    value = body.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
