"""`/admin/v1/jobs`: the jobs of every team; look, cancel, and have them made again."""

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.accounts.records import Role
from app.admin.audit import Audit
from app.admin.parameters import CHECKED_ACT, check_order, query_moment, read_flag, read_page
from app.admin.rendering import seconds
from app.admin.schemas import ADMIN_BEARER, DRY_RUN, MOMENT, PAGE
from app.api import queries
from app.api.authentication import caller_of
from app.api.calls import PRIORITIES, check_metadata
from app.api.rendering import Renderer, without_links
from app.api.schemas import ERRORS, query
from app.catalog.current import CurrentCatalog
from app.domain.errors import MissingParameter
from app.domain.money import usd
from app.jobs.lifecycle import Status
from app.jobs.records import Attempt, Job
from app.jobs.service import JobService, JobView
from app.kit.json import JsonObject

_FILTERS: Final = [
    query("status", "Only jobs in this status.", {"type": "string", "enum": [item.value for item in Status]}),
    query("model", "Only jobs of this model.", {"type": "string"}),
    query("team_id", "Only jobs of this team.", {"type": "string"}),
    query("api_key_id", "Only jobs of this key.", {"type": "string"}),
    query(
        "metadata[key]",
        "Only jobs with this pair, of the team that `team_id` names; may be repeated with other keys.",
        {"type": "string"},
    ),
    query("upstream", "Only jobs that asked this upstream.", {"type": "string"}),
    query("from", "Only jobs handed in from then on.", MOMENT),
    query("to", "Only jobs handed in before then; a date is the last day that belongs.", MOMENT),
    *PAGE,
]
_PRIORITY_NAMES: Final = {number: name for name, number in PRIORITIES.items()}
_JOB: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The job, with its team, its key and all that is known of its attempts. For a key that may "
        "only look, without links to its pictures."
    }
}
_DRY: Final[dict[str, Any]] = {"parameters": [DRY_RUN]}


def router(jobs: JobService, renderer: Renderer, catalog: CurrentCatalog, audit: Audit) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(
        prefix="/admin/v1/jobs",
        tags=["jobs of all teams"],
        dependencies=[ADMIN_BEARER, CHECKED_ACT],
        responses=ERRORS,
    )

    def document(request: Request, view: JobView) -> JsonObject:
        job: Any = renderer.job(view)
        if caller_of(request).role is Role.ADMIN_READ:
            job = without_links(job)
        return {
            **job,
            "team_id": view.job.team_id,
            "api_key_id": view.job.api_key_id,
            "priority": _PRIORITY_NAMES[view.job.priority],
            "catalog_version": view.job.catalog_version,
            "deadline_at": seconds(view.job.deadline_at),
            "claims": view.job.claims,
            "requeued_from": view.job.requeued_from,
            "attempts": [_attempt(item) for item in view.attempts],
        }

    @routes.get(
        "",
        summary="List jobs of all teams, newest first",
        openapi_extra={"parameters": _FILTERS},
        responses={200: {"description": "A page of jobs."}},
    )
    async def search(request: Request) -> Response:
        """List jobs, of one team or of all."""
        after, limit = read_page(request)
        status = queries.word(request, "status", tuple(item.value for item in Status))
        model = request.query_params.get("model")
        since, until = query_moment(request, "from"), query_moment(request, "to", is_end=True)
        check_order(since, until)
        team_id, metadata = request.query_params.get("team_id"), queries.bracketed(request, "metadata")
        if metadata and team_id is None:
            message = "Missing required parameter: 'team_id', whose jobs carry this metadata."
            raise MissingParameter(message, param="team_id")
        found, has_more = await jobs.search(
            team_id,
            status=None if status is None else Status(status),
            model=None if model is None else catalog.get().names.get(model, model),
            metadata=check_metadata(metadata),
            after=after,
            limit=limit,
            upstream=request.query_params.get("upstream"),
            api_key_id=request.query_params.get("api_key_id"),
            since=since,
            until=until,
        )
        return JSONResponse(
            {
                "object": "list",
                "data": [document(request, view) for view in found],
                "has_more": has_more,
                "first_id": found[0].job.id if found else None,
                "last_id": found[-1].job.id if found else None,
            }
        )

    @routes.get("/{job_id}", summary="Look at a job of any team", responses=_JOB)
    async def show(request: Request, job_id: str) -> Response:
        """Look at a job and its attempts in detail."""
        return JSONResponse(document(request, await jobs.view(job_id, None)))

    @routes.post("/{job_id}/cancel", summary="Give a job of any team up", openapi_extra=_DRY, responses=_JOB)
    async def cancel(request: Request, job_id: str) -> Response:
        """Cancel a job. What was sent to a vendor already is followed to its end, and its cost is booked."""
        is_dry = read_flag(request, "dry_run")
        witness = audit.witness(request, "job.cancelled", subject=_id_of, render=_state)
        view = await jobs.cancel(job_id, None, is_dry=is_dry, witness=witness)
        if not is_dry:
            return JSONResponse(document(request, view))
        under_way = sum(attempt.state.is_open for attempt in view.attempts)
        would: JsonObject = {"status": Status.CANCELLED.value, "calls_that_end_first": under_way}
        return JSONResponse({**document(request, view), "dry_run": True, "would": would})

    @routes.post(
        "/{job_id}/requeue",
        summary="Make a new job with the same request",
        status_code=201,
        openapi_extra=_DRY,
        responses={
            200: {"description": "With `dry_run`: the old job, and what the new one `would` be."},
            201: {"description": "The new job; `requeued_from` names the old one."},
        },
    )
    async def requeue(request: Request, job_id: str) -> Response:
        """Make a final job's request again, on the same team's account; the old job stays as it is."""
        if read_flag(request, "dry_run"):
            view, admitted = await jobs.check_requeue(job_id)
            hold_micros = admitted.picture_hold_micros
            would: JsonObject = {
                "requeued_from": job_id,
                "pictures": admitted.request.n,
                "cost_at_most_usd": None if hold_micros is None else usd(hold_micros * admitted.request.n),
            }
            return JSONResponse({**document(request, view), "dry_run": True, "would": would})
        witness = audit.witness(request, "job.requeued", subject=_id_of, render=_state)
        job = await jobs.requeue(job_id, witness=witness)
        return JSONResponse(document(request, await jobs.view(job.id, None)), status_code=201)

    return routes


def _id_of(job: Job) -> str:
    return job.id


def _state(job: Job) -> JsonObject:
    """What the audit log keeps of a job: no prompt, no result."""
    return {
        "id": job.id,
        "team_id": job.team_id,
        "model": job.request.model,
        "status": job.status.value,
        "requeued_from": job.requeued_from,
    }


def _attempt(attempt: Attempt) -> JsonObject:
    lasted_s = None if attempt.finished_at is None else attempt.finished_at - attempt.opened_at
    outcome = "pending" if attempt.state.is_open else "succeeded"
    return {
        "id": attempt.id,
        "upstream": attempt.upstream,
        "model": attempt.target.get("model"),
        "round": attempt.round,
        "pictures": attempt.pictures,
        "state": attempt.state.value,
        "outcome": outcome if attempt.failure is None else attempt.failure.value,
        "detail": attempt.detail,
        "param": attempt.param,
        "ticket": attempt.ticket,
        "cost_usd": None if attempt.cost_micros is None else usd(attempt.cost_micros),
        "hold_usd": None if attempt.hold_micros is None else usd(attempt.hold_micros),
        "certainty": None if attempt.certainty is None else attempt.certainty.value,
        "started_at": seconds(attempt.opened_at),
        "completed_at": seconds(attempt.finished_at),
        "duration_ms": None if lasted_s is None else round(lasted_s.total_seconds() * 1000),
    }
