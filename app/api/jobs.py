"""`/v1/jobs`: a team's jobs, their results and their events."""

import re
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.api import imarouter, queries
from app.api.answers import POLL_AFTER_S, Answers
from app.api.authentication import caller_of
from app.api.calls import check_metadata
from app.api.rendering import Renderer
from app.api.schemas import (
    BEARER,
    ERRORS,
    EVENTS,
    ChatCompletion,
    ImageJob,
    ImagesResponse,
    ImaRouterJob,
    JobList,
    header,
    query,
)
from app.api.sse import Event, EventStream
from app.catalog.current import CurrentCatalog
from app.jobs.lifecycle import Status
from app.jobs.service import JobService, JobView

_MAX_WAIT_S: Final = 60.0
_MAX_PAGE: Final = 100
_LISTED_BY: Final = ("status", "model", "limit", "after")
_EVENT_ID: Final = re.compile(r"(-1|[0-9]{1,9})-([0-9]{1,9})")
_SHAPE: Final = "image_job"
_WAIT: Final[dict[str, Any]] = {
    "parameters": [
        query(
            "shape",
            "`image_job`: as lists and events have it, whichever API the job came in by.",
            {"type": "string", "enum": [_SHAPE]},
        ),
        query(
            "wait",
            "Seconds to hold the answer until the job is final.",
            {"type": "number", "minimum": 0, "maximum": _MAX_WAIT_S, "default": 0},
        ),
    ]
}
_FILTERS: Final[dict[str, Any]] = {
    "parameters": [
        query("status", "Only jobs in this status.", {"type": "string", "enum": [item.value for item in Status]}),
        query("model", "Only jobs of this model.", {"type": "string"}),
        query("metadata[key]", "Only jobs with this pair; may be repeated with other keys.", {"type": "string"}),
        query("limit", "Jobs in one page.", {"type": "integer", "minimum": 1, "maximum": _MAX_PAGE, "default": 20}),
        query("after", "The last job of the page before.", {"type": "string", "minLength": 1}),
    ]
}  # fmt: skip
_INDEX: Final[dict[str, Any]] = {
    "parameters": [
        query(
            "index",
            "Which picture, counted from 0.",
            {"type": "integer", "default": 0},
        )
    ]
}
_LAST_EVENT: Final[dict[str, Any]] = {
    "parameters": [header("Last-Event-ID", "The last event that was seen; what came after it follows.")]
}


def router(jobs: JobService, answers: Answers, renderer: Renderer, catalog: CurrentCatalog) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[BEARER], responses=ERRORS)

    @routes.head("/{job_id}", include_in_schema=False)
    @routes.get(
        "/{job_id}",
        summary="Look at a job",
        openapi_extra=_WAIT,
        responses={
            200: {"model": ImageJob | ImaRouterJob, "description": "The job, in the words of its API."}
        },
    )
    async def show(request: Request, job_id: str) -> Response:
        """Look at a job, now or when it is final."""
        timeout_s = queries.number(request, "wait", default=0, low=0, high=_MAX_WAIT_S)
        shape = queries.word(request, "shape", (_SHAPE,))
        view = await jobs.wait(job_id, caller_of(request).team_id, timeout_s=timeout_s, is_caller=False)
        headers = {} if view.job.status.is_final else {"retry-after": str(POLL_AFTER_S)}
        if view.job.dialect == imarouter.DIALECT and shape is None:
            return JSONResponse(imarouter.job_document(view, renderer), headers=headers)
        return JSONResponse(renderer.job(view), headers=headers)

    @routes.head("", include_in_schema=False)
    @routes.get(
        "",
        summary="List jobs, newest first",
        openapi_extra=_FILTERS,
        responses={200: {"model": JobList, "description": "A page of jobs."}},
    )
    async def search(request: Request) -> Response:
        """List a team's jobs."""
        queries.refuse_others(request, _LISTED_BY, bracketed="metadata")
        status = queries.word(request, "status", tuple(item.value for item in Status))
        model = request.query_params.get("model")
        found, has_more = await jobs.search(
            caller_of(request).team_id,
            status=None if status is None else Status(status),
            # A job is kept under the model's own name, whatever alias it came by.
            model=None if model is None else catalog.get().names.get(model, model),
            metadata=check_metadata(queries.bracketed(request, "metadata")),
            after=request.query_params.get("after"),
            limit=queries.integer(request, "limit", default=20, low=1, high=_MAX_PAGE),
        )
        return JSONResponse(
            {
                "object": "list",
                "data": [renderer.job(view) for view in found],
                "has_more": has_more,
                "first_id": found[0].job.id if found else None,
                "last_id": found[-1].job.id if found else None,
            }
        )

    @routes.post(
        "/{job_id}/cancel",
        summary="Give a job up",
        responses={200: {"model": ImageJob, "description": "The cancelled job."}},
    )
    @routes.delete(
        "/{job_id}",
        summary="Give a job up",
        responses={200: {"model": ImageJob, "description": "The cancelled job."}},
    )
    async def cancel(request: Request, job_id: str) -> Response:
        """Cancel a job. What was sent to a vendor already is followed to its end, and its cost is booked."""
        return JSONResponse(renderer.job(await jobs.cancel(job_id, caller_of(request).team_id)))

    @routes.head("/{job_id}/result", include_in_schema=False)
    @routes.get(
        "/{job_id}/result",
        summary="Collect a job's result",
        responses={
            200: {
                "model": ImagesResponse | ChatCompletion,
                "description": "What a synchronous call would have got.",
            },
            202: {"model": ImageJob, "description": "The job is not final yet."},
        },
    )
    async def result(request: Request, job_id: str) -> Response:
        """Collect what a synchronous call would have got."""
        return await answers.result(await jobs.view(job_id, caller_of(request).team_id))

    @routes.head("/{job_id}/content", include_in_schema=False)
    @routes.get(
        "/{job_id}/content",
        summary="Go to one of a job's pictures",
        openapi_extra=_INDEX,
        responses={
            302: {"description": "A signed link to the picture."},
            202: {"model": ImageJob, "description": "The job is not final yet."},
        },
    )
    async def content(request: Request, job_id: str) -> Response:
        """Go to a picture; before there is one, answer as `/result` does."""
        index = queries.index(request, "index")
        return await answers.picture(await jobs.view(job_id, caller_of(request).team_id), index)

    @routes.get(
        "/{job_id}/events",
        summary="Watch a job",
        openapi_extra=_LAST_EVENT,
        responses={
            200: {"content": EVENTS, "description": "Server-sent events."},
            204: {"description": "The final event was the last one seen: there is nothing to come back for."},
        },
    )
    async def events(request: Request, job_id: str) -> Response:
        """Watch a job until it is final: `job.partial_image`, `job.updated` and `job.final`.

        Resumable with `Last-Event-ID`. After the final event the answer is 204, which browsers take for the end.
        """
        team_id = caller_of(request).team_id
        view = await jobs.view(job_id, team_id)
        revision, partials = _position(request.headers.get("last-event-id"))
        if view.job.status.is_final and revision >= view.job.revision:
            return Response(status_code=204)
        changes = jobs.changes(job_id, team_id, after_revision=revision)
        return EventStream(_events(changes, renderer, revision, partials))

    return routes


def _position(last_event_id: str | None) -> tuple[int, int]:
    """The revision and the number of partial pictures that a client has seen, by the event that it saw last."""
    match = _EVENT_ID.fullmatch(last_event_id or "")
    return (int(match[1]), int(match[2])) if match else (-1, 0)


async def _events(
    changes: AsyncIterator[JobView], renderer: Renderer, revision: int, partials: int
) -> AsyncIterator[Event]:
    async for view in changes:
        # Before the job itself, so that an event's id tells all that has been seen with it.
        for coarse in view.partials[partials:]:
            partials += 1
            data = renderer.partial(view.job, coarse)
            yield Event(name="job.partial_image", id=f"{revision}-{partials}", data=data)
        revision = view.job.revision
        name = "job.final" if view.job.status.is_final else "job.updated"
        yield Event(name=name, id=f"{revision}-{partials}", data=renderer.job(view))
