"""TheRouter: OpenAI's requests, answered with a job that is polled until links to the pictures stand in it.

Source: upstreams.md 2, read 2026-11-21; what it calls an assumption is one here too.
"""

import dataclasses
from typing import Final
from urllib.parse import quote

from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.requests import ImageRequest
from app.kit.retry_after import retry_after_s
from app.upstreams.contract import Call, Finished, Outcome, RemotePicture, Reply, ReplyJson, Target, Waiting
from app.upstreams.families.openai import OpenAIImages, read_error, read_usage

# Their examples poll at this pace.
_POLL_AFTER_S: Final = 5.0

# Its errors are in OpenAI's envelope, as far as is known, and its orders are OpenAI's requests.
_FORMAT: Final = OpenAIImages()

_ENDED: Final = frozenset({"failed", "cancelled", "expired"})


class TheRouter:
    """The adapter for TheRouter."""

    def submit(self, request: ImageRequest, target: Target) -> Call:
        """Place an order with the parameters that this vendor declares; `auto` is left out, as its default."""
        declared = dataclasses.replace(
            request,
            size=_unless_auto(request.size),
            quality=_unless_auto(request.quality),
            output_compression=None,
            moderation=None,
            input_fidelity=None,
            safety_identifier=None,
            extra={},
        )
        call = _FORMAT.submit(declared, target)
        return dataclasses.replace(call, url=f"{call.url}?async=true")

    def resume(self, ticket: str, target: Target) -> Call:
        """Ask after a job, at the configured address: a `polling_url` could lead the key to a foreign host."""
        return Call(method="GET", url=f"{target.base_url}/jobs/{quote(ticket, safe='')}")

    def read(self, reply: Reply, ticket: str | None) -> Outcome:
        """Read the answer to an order or to a question after one.

        A question that failed says nothing about the job, so it means waiting; only a job that the vendor no longer
        knows is given up.

        Raises:
            UpstreamFailure: the order was refused, or its job ended without pictures.
        """
        return _read_order(reply) if ticket is None else _read_job(reply, ticket)


def _read_order(reply: Reply) -> Outcome:
    body = reply.body if 200 <= reply.status < 300 else None
    job_id = body.get("id") if isinstance(body, dict) else None
    if isinstance(job_id, str) and job_id:
        return _read_job(reply, job_id)
    return _FORMAT.read(reply, None)


def _read_job(reply: Reply, ticket: str) -> Outcome:
    # An edge's page with this status is a failed question like any other.
    if reply.status == 404 and reply.is_json:
        raise UpstreamFailure(
            FailureKind.GARBLED, f"the vendor no longer knows the job {ticket!r}", status=reply.status
        )
    job = reply.body if 200 <= reply.status < 300 else None
    said = job.get("status") if isinstance(job, dict) else None
    status = said if isinstance(said, str) else ""
    if not isinstance(job, dict) or (status != "succeeded" and status not in _ENDED):
        return Waiting(ticket=ticket, poll_after_s=max(_POLL_AFTER_S, retry_after_s(reply.headers) or 0.0))
    if status in _ENDED:
        raise _ended(job, status)
    pictures = _pictures(job)
    if not pictures:
        raise UpstreamFailure(
            FailureKind.GARBLED, f"the job {ticket!r} succeeded without pictures", status=reply.status
        )
    return Finished(pictures=pictures, usage=read_usage(job.get("usage")))


def _ended(job: dict[str, ReplyJson], status: str) -> UpstreamFailure:
    error = read_error({"error": job.get("error")})
    if error is None:
        return UpstreamFailure(FailureKind.DOWN, f"the vendor reports the job {status}")
    # The error is in the vendor's own form, as if it had answered so at once; unnamed, it is its own failure.
    said = _FORMAT.failure(Reply(status=500, headers={}, body={"error": job.get("error")}, is_json=True))
    return UpstreamFailure(
        said.kind,
        f"the vendor reports the job {status}, code {error.code!r}, type {error.type!r}",
        param=error.param,
    )


def _unless_auto(value: str | None) -> str | None:
    return None if value == "auto" else value


def _pictures(job: dict[str, ReplyJson]) -> tuple[RemotePicture, ...]:
    links = job.get("unsigned_urls")
    result = job.get("result")
    if not links and isinstance(result, dict):
        data = result.get("data")
        links = [item.get("url") for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    return tuple(
        RemotePicture(source=link)
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, str) and link
    )


ADAPTER: Final = TheRouter()
