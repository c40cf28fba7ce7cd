"""Vercel AI Gateway: OpenAI's format with `creator/model` names, edits as JSON, and options of the provider behind it.

Source: upstreams.md 5 and 8.1, read 2026-11-21; what they call an assumption is one here too.
"""

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.kit.json import Json
from app.upstreams.charges import read_usd
from app.upstreams.contract import Call, Finished, InputDataUrl, JsonBody, Reply, ReplyJson, Target
from app.upstreams.families.openai import OpenAIImages, VendorError, read_error

_TYPES: Final[Mapping[str, FailureKind]] = {
    "authentication_error": FailureKind.CREDENTIALS,
    "model_not_found": FailureKind.UNSUPPORTED,
    "insufficient_funds": FailureKind.FUNDS,
    "rate_limit_exceeded": FailureKind.BUSY,
    "failed_dependency": FailureKind.DOWN,
    "internal_server_error": FailureKind.DOWN,
}

# `forbidden` is no entry above, because some of these come with it.
_WORDS: Final = (
    # "AI Gateway requires a valid credit card on file to service requests..."
    ("valid credit card", FailureKind.FUNDS),
    # "Free tier users do not have access to this model."
    ("free tier users do not have access", FailureKind.CREDENTIALS),
)

_FORMAT: Final = OpenAIImages(types=_TYPES, words=_WORDS)

_PROVIDER_OPTIONS: Final = "providerOptions"

# The account that a provider turns away is the gateway's, not ours: to us the gateway has failed.
_OF_THE_ACCOUNT: Final = frozenset({FailureKind.CREDENTIALS, FailureKind.FUNDS})


class Vercel:
    """The adapter for Vercel AI Gateway."""

    def submit(self, request: ImageRequest, target: Target) -> Call:
        """Write an order; what the gateway itself has no field for goes to the provider, under `providerOptions`.

        Raises:
            UpstreamFailure: the client's own `providerOptions` is no object.
        """
        fields = _fields(request, target)
        if request.operation is not Operation.EDIT:
            return Call(
                method="POST", url=f"{target.base_url}/images/generations", body=JsonBody(value=fields)
            )
        edit: dict[str, object] = {**fields, "images": [_reference(picture) for picture in request.images]}
        if request.mask is not None:
            edit["mask"] = _reference(request.mask)
        return Call(method="POST", url=f"{target.base_url}/images/edits", body=JsonBody(value=edit))

    def resume(self, ticket: str, target: Target) -> Call:
        """Refuse: this vendor answers at once and hands out no tickets.

        Raises:
            ValueError: always.
        """
        return _FORMAT.resume(ticket, target)

    def read(self, reply: Reply, ticket: str | None) -> Finished:
        """Read the pictures and what they cost, or say why there are none.

        Raises:
            UpstreamFailure: the answer made no picture.
        """
        if not 200 <= reply.status < 300:
            raise _failure(reply)
        finished = _FORMAT.read(reply, ticket)
        return dataclasses.replace(finished, cost_usd=_cost_usd(reply.body))


def _fields(request: ImageRequest, target: Target) -> dict[str, object]:
    # The family writes an edit as a form, so it is asked for a generation with the same parameters.
    plain = dataclasses.replace(
        request,
        operation=Operation.GENERATION,
        size=_unless_auto(request.size),
        quality=_unless_auto(request.quality),
        moderation=None,
        output_compression=None,
        extra={name: value for name, value in request.extra.items() if name != _PROVIDER_OPTIONS},
    )
    body = _FORMAT.submit(plain, target).body
    if not isinstance(body, JsonBody):
        raise TypeError("a generation is not written as JSON")
    fields = dict(body.value)
    if request.operation is Operation.EDIT and request.input_fidelity is not None:
        fields["input_fidelity"] = request.input_fidelity
    options = _provider_options(request, target)
    if options:
        fields[_PROVIDER_OPTIONS] = options
    return fields


def _provider_options(request: ImageRequest, target: Target) -> dict[str, Json]:
    given = request.extra.get(_PROVIDER_OPTIONS)
    if given is not None and not isinstance(given, dict):
        raise UpstreamFailure(
            FailureKind.INVALID,
            f"{_PROVIDER_OPTIONS!r} is a {type(given).__name__}, not an object",
            param=_PROVIDER_OPTIONS,
        )
    known: dict[str, Json] = {
        "moderation": request.moderation,
        "outputCompression": request.output_compression,
    }
    asked = {name: value for name, value in known.items() if value is not None}
    options = dict(given or {})
    if asked:
        creator = target.model.partition("/")[0]
        theirs = options.get(creator)
        options[creator] = {**theirs, **asked} if isinstance(theirs, dict) else asked
    return options


def _reference(picture: InputPicture) -> dict[str, object]:
    return {"image_url": InputDataUrl(picture.file_id, picture.format.media_type)}


def _unless_auto(value: str | None) -> str | None:
    return None if value == "auto" else value


def _failure(reply: Reply) -> UpstreamFailure:
    """Read an error of the gateway's own, or one that a provider behind it answered with and that it passes on."""
    error, status = read_error(reply.body), _provider_status(reply.body)
    if error is None or status is None or _is_own(error):
        return _FORMAT.failure(reply)
    said = _FORMAT.failure(dataclasses.replace(reply, status=status))
    return UpstreamFailure(
        FailureKind.DOWN if said.kind in _OF_THE_ACCOUNT else said.kind,
        f"HTTP {reply.status}, the provider's {status}, code {error.code!r}, type {error.type!r}",
        retry_after_s=said.retry_after_s,
        param=said.param,
        status=reply.status,
    )


def _is_own(error: VendorError) -> bool:
    message = error.message.lower()
    return error.type in _TYPES or any(words in message for words, _ in _WORDS)


def _provider_status(body: ReplyJson) -> int | None:
    error = body.get("error") if isinstance(body, dict) else None
    param = error.get("param") if isinstance(error, dict) else None
    status = param.get("statusCode") if isinstance(param, dict) else None
    return status if isinstance(status, int) and 400 <= status < 600 else None


def _cost_usd(body: ReplyJson) -> Decimal | None:
    # Their pages spell it both ways.
    for name in ("providerMetadata", "provider_metadata"):
        metadata = body.get(name) if isinstance(body, dict) else None
        gateway = metadata.get("gateway") if isinstance(metadata, dict) else None
        if isinstance(gateway, dict):
            return read_usd(gateway.get("cost"))
    return None


ADAPTER: Final = Vercel()
