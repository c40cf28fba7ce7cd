"""ImaRouter: every order becomes a job that is polled, in one of two dialects.

`options: {dialect: jobs}`, the default, is what the vendor's model page shows; `{dialect: tasks}` what its SDK and its
API documentation do. Both take input pictures by address alone: by links that it fetches from the gateway, or, with
`accepts_data_urls: true` and where it cannot fetch, as data URLs.

Source: upstreams.md 3 and 8.1, read 2026-11-21; what they call an assumption is one here too.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.pictures import Size, parse_size
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.kit.retry_after import retry_after_s
from app.upstreams.charges import read_usd
from app.upstreams.contract import (
    Blob,
    Call,
    Finished,
    InputDataUrl,
    InputLink,
    JsonBody,
    Outcome,
    RemotePicture,
    Reply,
    ReplyJson,
    Target,
    Waiting,
)
from app.upstreams.families.openai import OpenAIImages, read_error, read_usage


class Dialect(StrEnum):
    """Which of the two published interfaces an upstream is spoken to in."""

    JOBS = "jobs"
    """camelCase, the model in the path; asked after under `/jobs`, every 3 s."""
    TASKS = "tasks"
    """snake_case, one path for all orders; asked after under the same path, every 5 s. One picture an order."""


_JOB_POLL_AFTER_S: Final = 3.0
_TASK_POLL_AFTER_S: Final = 5.0

_PRESETS: Final[Mapping[Size, str]] = {
    Size(1024, 1024): "square_hd",
    Size(768, 1024): "portrait_4_3",
    Size(1024, 768): "landscape_4_3",
}
"""The presets that name a size which gpt-image-2 makes; what the vendor does with the others is not known."""

_IDS: Final = ("id", "jobId", "job_id", "task_id", "requestId", "request_id")

_SUCCEEDED: Final = frozenset({"succeeded", "completed"})
_FAILED: Final = frozenset({"failed", "error", "cancelled", "canceled", "expired"})

# The message of a reply without an id that comes in place of an order, and that of a failed task.
_QUEUE_FULL: Final = "queue full"
_CONTENT_REJECTED: Final = "content rejected"

# Only the shapes of its errors are its own; statuses, words and whatever codes it passes on are read as OpenAI's.
_ERRORS: Final = OpenAIImages(
    words=((_QUEUE_FULL, FailureKind.BUSY), (_CONTENT_REJECTED, FailureKind.REFUSED)),
)


class ImaRouter:
    """The adapter for ImaRouter."""

    def submit(self, request: ImageRequest, target: Target) -> Call:
        """Place an order in the upstream's dialect; `auto` is left to the vendor.

        Raises:
            UpstreamFailure: the upstream's options name no dialect.
        """
        match _dialect(target):
            case Dialect.JOBS:
                return _order_job(request, target)
            case Dialect.TASKS:
                return _order_task(request, target)

    def resume(self, ticket: str, target: Target) -> Call:
        """Ask after an order, at the configured address.

        Raises:
            UpstreamFailure: the upstream's options name no dialect.
        """
        place = "jobs" if _dialect(target) is Dialect.JOBS else "images/generations"
        return Call(method="GET", url=f"{target.base_url}/{place}/{quote(ticket, safe='')}")

    def read(self, reply: Reply, ticket: str | None) -> Outcome:
        """Read the answer to an order or to a question after one, in either dialect: their replies tell them apart.

        A question that failed says nothing about the order, so it means waiting; only an order that the vendor no
        longer knows is given up.

        Raises:
            UpstreamFailure: the order was refused, or ended without pictures.
        """
        if ticket is not None:
            return _read_order(reply, ticket)
        given = _ticket(reply)
        if given is None:
            raise _refusal(reply)
        return _read_order(reply, given)


def _dialect(target: Target) -> Dialect:
    named = target.options.get("dialect", Dialect.JOBS.value)
    for dialect in Dialect:
        if named == dialect.value:
            return dialect
    known = " or ".join(Dialect)
    raise UpstreamFailure(FailureKind.UNSUPPORTED, f"the option 'dialect' is {named!r}; write {known}")


def _order_job(request: ImageRequest, target: Target) -> Call:
    is_edit = request.operation is Operation.EDIT
    fields: dict[str, object | None] = {
        "prompt": request.prompt,
        "imageUrls": [_input(picture, target) for picture in request.images] if is_edit else None,
        "maskUrl": None if request.mask is None else _input(request.mask, target),
        "imageSize": _image_size(request.size, is_edit=is_edit),
        "quality": _unless_auto(request.quality),
        "numImages": target.pictures,
        "outputFormat": request.output_format,
    }
    action = "edit" if is_edit else "generate"
    url = f"{target.base_url}/image/{quote(target.model, safe='')}/{action}"
    return Call(method="POST", url=url, body=JsonBody(value=_given(fields)))


def _image_size(size: str | None, *, is_edit: bool) -> object | None:
    if size == "auto":
        # Only an edit knows the word: it takes the input's size.
        return "auto" if is_edit else None
    pixels = None if size is None else parse_size(size)
    if pixels is None:
        return None
    return _PRESETS.get(pixels) or {"width": pixels.width_px, "height": pixels.height_px}


def _order_task(request: ImageRequest, target: Target) -> Call:
    fields: dict[str, object | None] = {
        "model": target.model,
        "prompt": request.prompt,
        "images": [_input(picture, target) for picture in request.images] or None,
        "mask": None if request.mask is None else _input(request.mask, target),
        # One address in a task's answer is all that has been seen: more pictures would be paid for and lost.
        "n": 1,
        "size": _unless_auto(request.size),
        "quality": _unless_auto(request.quality),
        "background": request.background,
        "output_format": request.output_format,
        "output_compression": request.output_compression,
        "moderation": request.moderation,
        "input_fidelity": request.input_fidelity,
    }
    return Call(
        method="POST", url=f"{target.base_url}/images/generations", body=JsonBody(value=_given(fields))
    )


def _given(fields: Mapping[str, object | None]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _unless_auto(value: str | None) -> str | None:
    return None if value == "auto" else value


def _input(picture: InputPicture, target: Target) -> InputLink | InputDataUrl:
    if target.options.get("accepts_data_urls") is True and not target.can_link:
        return InputDataUrl(picture.file_id, picture.format.media_type)
    return InputLink(picture.file_id)


def _ticket(reply: Reply) -> str | None:
    """The name of the order that was accepted; None when none was."""
    body = reply.body
    if not 200 <= reply.status < 300 or not isinstance(body, dict):
        return None
    if body.get("error") and "status" not in body:
        # What is named here is the request, not an order.
        return None
    named = [part.get(name) for part in (body, _order(body)) for name in _IDS]
    for value in named:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value:
            return value
    return None


def _order(body: dict[str, ReplyJson]) -> dict[str, ReplyJson]:
    """The part of an answer that tells of the order: `data`, or all of it."""
    data = body.get("data")
    return data if isinstance(data, dict) else body


def _read_order(reply: Reply, ticket: str) -> Outcome:
    # An edge's page with this status is a failed question like any other.
    if reply.status == 404 and reply.is_json:
        raise UpstreamFailure(
            FailureKind.GARBLED, f"the vendor no longer knows the order {ticket!r}", status=reply.status
        )
    body = reply.body if 200 <= reply.status < 300 else None
    order = _order(body) if isinstance(body, dict) else {}
    said = order.get("status")
    status = said.lower() if isinstance(said, str) else ""
    if status not in _SUCCEEDED | _FAILED:
        pace_s = _JOB_POLL_AFTER_S if _is_job(reply) else _TASK_POLL_AFTER_S
        return Waiting(ticket=ticket, poll_after_s=max(pace_s, retry_after_s(reply.headers) or 0.0))
    if status in _FAILED:
        raise _ended(order, status)
    pictures = _pictures(order)
    if not pictures:
        raise UpstreamFailure(
            FailureKind.GARBLED, f"the order {ticket!r} succeeded without pictures", status=reply.status
        )
    usage = order.get("usage")
    charged = order.get("amount_usd")
    if charged is None and isinstance(usage, dict):
        charged = usage.get("cost")
    form = order.get("format")
    return Finished(
        pictures=pictures,
        usage=read_usage(usage),
        cost_usd=read_usd(charged),
        output_format=form if isinstance(form, str) and form else None,
    )


def _is_job(reply: Reply) -> bool:
    body = reply.body
    return isinstance(body, dict) and "status" in body and "task_id" not in body


def _pictures(order: Mapping[str, ReplyJson]) -> tuple[RemotePicture, ...]:
    output = order.get("output")
    found = [order.get("url")] if output is None else output if isinstance(output, list) else []
    links = [item.get("url") if isinstance(item, dict) else item for item in found]
    return tuple(RemotePicture(source=link) for link in links if link and isinstance(link, (str, Blob)))


def _refusal(reply: Reply) -> UpstreamFailure:
    """Read an order that was not accepted: an error in one of the vendor's shapes, put into OpenAI's envelope."""
    error = _error(reply)
    envelope: dict[str, ReplyJson] = {} if error is None else {"error": error}
    return _ERRORS.failure(
        Reply(status=reply.status, headers=reply.headers, body=envelope, is_json=reply.is_json)
    )


def _error(reply: Reply) -> ReplyJson:
    body = reply.body
    if not isinstance(body, dict):
        return None
    if body.get("error"):
        return body["error"]
    code, message = body.get("code"), body.get("message")
    if isinstance(code, str) and code.lower() != "success":
        return {"code": code, "message": message}
    if not isinstance(message, str):
        return None
    # A success without an id may be an order all the same, whatever it says; only the one known text is a refusal.
    is_success = 200 <= reply.status < 300
    return None if is_success and _QUEUE_FULL not in message.lower() else message


def _ended(order: Mapping[str, ReplyJson], status: str) -> UpstreamFailure:
    envelope: dict[str, ReplyJson] = {"error": order.get("error")}
    error = read_error(envelope)
    if error is None:
        return UpstreamFailure(FailureKind.DOWN, f"the vendor reports the order {status}")
    # The error is in the vendor's own form, as if it had answered so at once; unnamed, it is its own failure.
    said = _ERRORS.failure(Reply(status=500, headers={}, body=envelope, is_json=True))
    return UpstreamFailure(
        said.kind,
        f"the vendor reports the order {status}, code {error.code!r}, type {error.type!r}",
        param=error.param,
    )


ADAPTER: Final = ImaRouter()
