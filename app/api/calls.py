"""What a call says about itself besides the picture: how it wants to be answered, retried, sorted and cancelled."""

import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request

from app.accounts.records import Caller
from app.api.parameters import Fields, json_parameter
from app.domain.errors import InvalidValue
from app.domain.requests import ImageRequest
from app.jobs.submissions import Submission
from app.kit.json import Json
from app.webhooks.receivers import check_receiver

PRIORITIES: Final = {"high": 0, "normal": 1, "low": 2}
"""What a request may call its priority, and what a job has for it; the lowest number goes first."""
_METADATA_PAIRS: Final = 16
_METADATA_KEY_CHARS: Final = 64
_METADATA_VALUE_CHARS: Final = 512
# Brackets would be ambiguous in `metadata[key]`; quotes and backslashes in the paths by which jobs are searched.
_METADATA_KEY: Final = re.compile(r'[^\[\]"\\\x00-\x1f\x7f]+')
_IDEMPOTENCY_KEY: Final = re.compile(r"[ -~]{1,255}")
_COUNT: Final = re.compile(r"[0-9]{1,4}")
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_TRUE: Final = frozenset({"true", "1"})
_FALSE: Final = frozenset({"false", "0", ""})
# Before its read timeout an SDK is answered by this share of it, within these bounds: time for the answer to travel.
_SDK_MARGIN: Final = 0.2
_SDK_LEAST_MARGIN_S: Final = 0.3
_SDK_MOST_MARGIN_S: Final = 5.0
# The Node client announces the same under another name, in whole seconds: how long it waits for an answer's head.
_SDK_TIMEOUTS: Final = ("x-stainless-read-timeout", "x-stainless-timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """Everything about a call that is not the picture."""

    is_async: bool
    """Whether the caller wants the job, not its result."""
    prefers_async: bool
    """Whether it said so in a `Prefer` header, which is answered by another header."""
    idempotency_key: str | None
    sdk_retry: int | None
    """The SDK's own count of this call's repetitions; None when the client does not count."""
    read_timeout_s: float | None
    """How long the caller's SDK says that it will wait; None when it says nothing."""
    metadata: Mapping[str, str]
    webhook_url: str | None
    """Who wants to be told how the job ended; its text is judged, where it leads is not yet."""
    priority: int
    cancel_after_s: float | None
    received_at: float = field(default_factory=time.monotonic)
    """When the call was here with its whole body, by this process's monotonic clock."""

    def submission(self, caller: Caller, request: ImageRequest, fingerprint: bytes) -> Submission:
        """Join the call, its caller and the picture that it asks for."""
        return Submission(
            team_id=caller.team_id,
            api_key_id=caller.api_key_id,
            request=request,
            fingerprint=fingerprint,
            idempotency_key=self.idempotency_key,
            sdk_retry=self.sdk_retry,
            metadata=self.metadata,
            webhook_url=self.webhook_url,
            priority=self.priority,
            cancel_after_s=self.cancel_after_s,
            is_waited_for=not self.is_async,
            received_at=self.received_at,
        )

    def hold_s(self, sync_timeout_s: float) -> float:
        """How long to hold the caller from now on: ours to say, but no longer than its SDK listens.

        An SDK counts from the end of its body, so what was done with the call until now is taken off.
        """
        if self.read_timeout_s is None:
            return sync_timeout_s
        margin_s = min(max(self.read_timeout_s * _SDK_MARGIN, _SDK_LEAST_MARGIN_S), _SDK_MOST_MARGIN_S)
        listens_s = max(self.read_timeout_s - margin_s, self.read_timeout_s / 2)
        spent_s = time.monotonic() - self.received_at
        return max(min(sync_timeout_s, listens_s - spent_s), 0.0)


def read_options(request: Request, fields: Fields) -> CallOptions:
    """Read a call's options from its query, its headers and its body, and take them out of the body.

    Raises:
        InvalidValue: an option has an impossible value, or different ones in the body and in a header.
        ReceiverRefused: nothing can be sent to `webhook_url`.
    """
    prefers_async = _prefers_async(request)
    is_async = _wants_async(request, fields) or prefers_async
    if is_async and fields.holds("stream") and fields.rest()["stream"] is True:
        message = "Invalid value: 'async' and 'stream' exclude each other. Leave one of them out."
        raise InvalidValue(message, param="async")
    webhook_url = _text(request, fields, "webhook_url")
    if webhook_url is not None:
        check_receiver(webhook_url, param="webhook_url")
    return CallOptions(
        is_async=is_async,
        prefers_async=prefers_async,
        idempotency_key=_idempotency_key(request),
        sdk_retry=_sdk_retry(request),
        read_timeout_s=_read_timeout_s(request),
        metadata=_metadata(request, fields),
        webhook_url=webhook_url,
        priority=_priority(request, fields),
        cancel_after_s=_cancel_after_s(request, fields),
    )


def fingerprint_of(method: str, route: str, document: Mapping[str, Json]) -> bytes:
    """Digest a JSON request so that calls that ask for the same have the same: SHA-256 of a canonical form.

    The order of keys, white space, the way a number is written and members that are null make no difference, nor does
    whether the caller wants the job or waits for its result.
    """
    given = {
        name: _normalised(value) for name, value in document.items() if value is not None and name != "async"
    }
    text = json.dumps([method, route, given], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).digest()


def _normalised(value: Json) -> Json:
    match value:
        case float() if value.is_integer():
            return int(value)
        case Mapping():
            return {name: _normalised(inner) for name, inner in value.items()}
        case list():
            return [_normalised(inner) for inner in value]
        case _:
            return value


def _flag(request: Request, name: str) -> bool:
    several = request.query_params.getlist(name) or [""]
    if len(several) > 1:
        raise InvalidValue(f"Invalid '{name}': it is given twice. Leave one out.", param=name)
    given = several[0].lower()
    if given not in _TRUE | _FALSE:
        raise InvalidValue(f"Invalid value: {given!r}. Supported values are: 'true' and 'false'.", param=name)
    return given in _TRUE


def _wants_async(request: Request, fields: Fields) -> bool:
    """Whether the query, or the body under the same name, asks for the job."""
    from_query, from_body = _flag(request, "async"), fields.boolean("async")
    if from_body is not None and "async" in request.query_params and from_body != from_query:
        message = "Invalid 'async': the body and the query say different things. Send one of them."
        raise InvalidValue(message, param="async")
    return from_query or bool(from_body)


def _prefers_async(request: Request) -> bool:
    preferences = ",".join(request.headers.getlist("prefer")).lower().split(",")
    return any(item.partition(";")[0].strip() == "respond-async" for item in preferences)


def _matching(form: re.Pattern[str], given: str | None, default: str) -> str:
    return given if given is not None and form.fullmatch(given) else default


def _sdk_retry(request: Request) -> int | None:
    given = _matching(_COUNT, request.headers.get("x-stainless-retry-count"), "")
    return int(given) if given else None


def _read_timeout_s(request: Request) -> float | None:
    announced = (_matching(_SECONDS, request.headers.get(name), "0") for name in _SDK_TIMEOUTS)
    # Nobody who asks waits for nothing at all.
    return next((seconds for given in announced if (seconds := float(given)) > 0), None)


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.get("idempotency-key")
    if given is not None and not _IDEMPOTENCY_KEY.fullmatch(given):
        message = (
            f"Invalid Idempotency-Key: expected 1 to 255 printable ASCII characters, but got {len(given)}."
        )
        raise InvalidValue(message, param="Idempotency-Key")
    return given


def _text(request: Request, fields: Fields, name: str) -> str | None:
    """One option as text, from the body or from its header."""
    from_body = fields.text(name)
    from_header = request.headers.get(_header(name))
    if from_body is not None and from_header is not None and from_body != from_header:
        raise _contradiction(name)
    return from_header if from_body is None else from_body


def _priority(request: Request, fields: Fields) -> int:
    given = _text(request, fields, "priority")
    if given is None:
        return PRIORITIES["normal"]
    if given not in PRIORITIES:
        message = f"Invalid value: {given!r}. Supported values are: 'high', 'normal' and 'low'."
        raise InvalidValue(message, param="priority")
    return PRIORITIES[given]


def _cancel_after_s(request: Request, fields: Fields) -> float | None:
    from_body = fields.number("cancel_after_s")
    header = request.headers.get(_header("cancel_after_s"))
    from_header = None if header is None else float(_matching(_SECONDS, header, "nan"))
    if from_body is not None and from_header is not None and from_body != from_header:
        raise _contradiction("cancel_after_s")
    given = from_header if from_body is None else from_body
    if given is not None and (math.isnan(given) or given <= 0):
        shown = header if from_body is None else from_body
        message = f"Invalid 'cancel_after_s': expected a number of seconds above 0, but got {shown!r}."
        raise InvalidValue(message, param="cancel_after_s")
    return given


def _metadata(request: Request, fields: Fields) -> dict[str, str]:
    from_body = fields.mapping("metadata")
    header = request.headers.get(_header("metadata"))
    from_header = None if header is None else json_parameter(header.encode("latin-1"), "metadata")
    if from_body is not None and from_header is not None and from_body != from_header:
        raise _contradiction("metadata")
    return check_metadata((from_header if from_body is None else from_body) or {})


def check_metadata(given: Mapping[str, Json]) -> dict[str, str]:
    """Check the pairs that a client hangs on its job, or searches by.

    Raises:
        InvalidValue: too many pairs, too long ones, or ones that are no strings.
    """
    if len(given) > _METADATA_PAIRS:
        message = f"Invalid 'metadata': expected at most {_METADATA_PAIRS} pairs, but got {len(given)}."
        raise InvalidValue(message, param="metadata")
    return {key: _metadata_value(key, value) for key, value in given.items()}


def _metadata_value(key: str, value: Json) -> str:
    if len(key) > _METADATA_KEY_CHARS or not _METADATA_KEY.fullmatch(key):
        message = (
            f"Invalid 'metadata': {key[:80]!r} is no key. Keys have 1 to {_METADATA_KEY_CHARS} characters, "
            "without brackets, quotes and backslashes."
        )
        raise InvalidValue(message, param="metadata")
    if not isinstance(value, str) or len(value) > _METADATA_VALUE_CHARS:
        message = (
            f"Invalid 'metadata': the value of {key!r} must be a string of at most "
            f"{_METADATA_VALUE_CHARS} characters."
        )
        raise InvalidValue(message, param="metadata")
    return value


def _header(name: str) -> str:
    return f"x-darkroom-{name.replace('_', '-')}"


def _contradiction(name: str) -> InvalidValue:
    message = (
        f"Invalid '{name}': the body and the header '{_header(name)}' say different things. Send one of them."
    )
    return InvalidValue(message, param=name)
