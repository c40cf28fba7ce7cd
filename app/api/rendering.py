"""Writes jobs, results and pictures as clients see them (contract 4 and 5). Reads nothing and decides nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from app.assets.links import LinkSigner
from app.assets.records import Asset
from app.domain.money import usd
from app.jobs.lifecycle import AttemptState, Status
from app.jobs.records import Attempt, Job
from app.jobs.service import JobView
from app.kit.json import Json, JsonObject

_RESULT_FIELDS: Final = ("output_format", "quality", "size", "usage")


class Renderer:
    """Knows how the gateway is reached, for every URL that is handed out."""

    def __init__(self, signer: LinkSigner, public_url: str) -> None:
        self._signer = signer
        self._public_url = public_url.rstrip("/")

    def job(self, view: JobView) -> dict[str, object]:
        """The `image_job` object."""
        job = view.job
        return {
            **self.accepted(job),
            "operation": job.request.operation.value,
            "started_at": _seconds(job.started_at),
            "completed_at": _seconds(job.finished_at),
            "unsigned_urls": self.links(view),
            "result": self._linked_result(view),
            "cost": _cost(view),
            "upstream": upstream_of(view),
            "attempts": [_attempt(item) for item in view.attempts],
            "late": [{"file_id": item.id, "url": self.link(item)} for item in view.late],
            "error": _error(job),
            "metadata": dict(job.metadata),
        }

    def accepted(self, job: Job) -> dict[str, object]:
        """The short form of a job, which answers an asynchronous call."""
        return {
            "id": job.id,
            "object": "image_job",
            "status": status_of(job).value,
            "model": job.request.model,
            "created_at": _seconds(job.created_at),
            "expires_at": _seconds(job.expires_at),
            "polling_url": self.polling_url(job.id),
        }

    def polling_url(self, job_id: str) -> str:
        """Where the job is looked at."""
        return f"{self._public_url}/v1/jobs/{job_id}"

    def link(self, asset: Asset) -> str:
        """A signed link to a picture, good for as long as the picture is kept."""
        return self._signer.sign(asset.team_id, asset.id, asset.expires_at)

    def partial(self, job: Job, coarse: Asset) -> dict[str, object]:
        """A coarse picture of a job that is not final yet, for whoever watches it."""
        return {
            "id": job.id,
            "object": "image_job.partial_image",
            "partial_image_index": coarse.index,
            "url": self.link(coarse),
            "output_format": coarse.format.value,
            "created_at": _seconds(coarse.created_at),
        }

    def links(self, view: JobView) -> list[str]:
        """Signed links to the job's pictures, in order."""
        return [self.link(item) for item in view.pictures]

    def _linked_result(self, view: JobView) -> dict[str, object] | None:
        if view.job.result is None:
            return None
        return result_of(view.job.result, [{"url": url} for url in self.links(view)])


def without_links(job: Mapping[str, Any]) -> dict[str, Any]:
    """An `image_job` for somebody who may know of its pictures and not see them."""
    result = job["result"]
    return {
        **job,
        "unsigned_urls": [],
        "result": result and {**result, "data": []},
        "late": [{"file_id": item["file_id"]} for item in job["late"]],
    }


def result_of(result: Mapping[str, object], data: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """OpenAI's ImagesResponse from what the job keeps; what is not known is left out.

    The same job gives the same bytes every time, so that a replayed answer equals the first one.
    """
    known = {
        "background": result.get("background"),
        "data": list(data),
        **{name: result.get(name) for name in _RESULT_FIELDS},
        "adjusted": result.get("adjusted") or None,
    }
    return {
        "created": result["created"],
        **{name: value for name, value in known.items() if value is not None},
    }


def event_usages(usage: Json, pictures: int) -> list[JsonObject | None]:
    """The usage of each picture's event; none is known when the job's is not.

    They add up to the job's: vendors bill the call, and nobody knows which of its pictures took how much.
    """
    if not isinstance(usage, Mapping):
        return [None] * pictures
    return [_share(usage, place, pictures) for place in range(pictures)]


def _share(usage: Mapping[str, Json], place: int, pictures: int) -> JsonObject:
    shared: JsonObject = {}
    for name, value in usage.items():
        if (
            isinstance(value, Mapping) and name != "output_tokens_details"
        ):  # which OpenAI's events do not have
            shared[name] = _share(value, place, pictures)
        elif isinstance(value, int):
            shared[name] = value // pictures + (place < value % pictures)
    if "total_tokens" in usage:
        # Rounded shares of the whole and of its parts would not add up.
        shared["total_tokens"] = int(str(shared["input_tokens"])) + int(str(shared["output_tokens"]))
    return shared


def result_headers(view: JobView) -> dict[str, str]:
    """What a synchronous answer says of its job in headers; a cost that is not known is left out."""
    headers = {"x-darkroom-job-id": view.job.id, "x-darkroom-attempts": str(len(view.attempts))}
    upstream, cost_micros = upstream_of(view), view.cost_micros
    if upstream is not None:
        headers["x-darkroom-upstream"] = upstream
    if cost_micros is not None:
        headers["x-darkroom-cost-usd"] = usd(cost_micros)
    return headers


def status_of(job: Job) -> Status:
    """The status as clients see it: a job whose pictures have had their time is shown as expired."""
    is_over = job.is_expired or job.purged_at is not None
    return Status.EXPIRED if is_over and job.status is Status.SUCCEEDED else job.status


def upstream_of(view: JobView) -> str | None:
    """Who made the pictures, else who was asked last; None before anybody was."""
    made = [item for item in view.attempts if item.state is AttemptState.SUCCEEDED]
    asked = made or view.attempts[-1:]
    return asked[0].upstream if asked else None


def _cost(view: JobView) -> dict[str, object]:
    cost_micros = view.cost_micros
    if cost_micros is None:
        return {"usd": None, "estimated": True, "unpriced": True}
    return {"usd": usd(cost_micros), "estimated": view.cost_is_estimated}


def _attempt(attempt: Attempt) -> dict[str, object]:
    ended_at = attempt.finished_at
    lasted_s = None if ended_at is None else (ended_at - attempt.opened_at).total_seconds()
    return {
        "upstream": attempt.upstream,
        "outcome": _outcome(attempt),
        "cost_usd": None if attempt.cost_micros is None else usd(attempt.cost_micros),
        "started_at": _seconds(attempt.opened_at),
        "duration_ms": None if lasted_s is None else round(lasted_s * 1000),
    }


def _outcome(attempt: Attempt) -> str:
    if attempt.state.is_open:
        return "pending"
    return "succeeded" if attempt.failure is None else attempt.failure.value


def _error(job: Job) -> dict[str, object] | None:
    if job.error is None:
        return None
    return {name: job.error.get(name) for name in ("message", "type", "param", "code")}


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
