"""`/admin/v1/maintenance`: let the gateway run dry, all processes together, and take in work again."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.admin.audit import Audit
from app.admin.parameters import CHECKED_ACT, read_fields, read_flag, refuse_rest
from app.admin.rendering import seconds
from app.admin.schemas import ADMIN_BEARER, DRY_RUN, Maintenance, MaintenanceChange, answer, body
from app.api.schemas import ERRORS
from app.domain.errors import MissingParameter
from app.jobs.lifecycle import Status
from app.jobs.service import JobService
from app.jobs.switches import Switch
from app.kit.json import JsonObject


def router(jobs: JobService, audit: Audit) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(
        prefix="/admin/v1/maintenance",
        tags=["operation"],
        dependencies=[ADMIN_BEARER, CHECKED_ACT],
        responses=ERRORS,
    )

    async def state() -> JsonObject:
        switch, counts = await jobs.maintenance()
        return {
            "drain": switch.is_on,
            "since": seconds(switch.changed_at) if switch.is_on else None,
            "queued": counts[Status.QUEUED],
            "in_progress": counts[Status.IN_PROGRESS],
        }

    @routes.get("", summary="Is new work taken in?", responses=answer(Maintenance, "How it stands."))
    async def show(_request: Request) -> Response:
        """Tell whether new jobs are turned away, and how many are still to be finished."""
        return JSONResponse(await state())

    @routes.post(
        "",
        summary="Turn new work away, or take it in again",
        openapi_extra={**body(MaintenanceChange), "parameters": [DRY_RUN]},
        responses=answer(Maintenance, "How it stands now."),
    )
    async def change(request: Request) -> Response:
        """Turn new jobs away with 503 `shutting_down`, or take them in again. Jobs that are there go on."""
        fields = await read_fields(request)
        drain = fields.boolean("drain")
        refuse_rest(fields, "drain")
        if drain is None:
            raise MissingParameter("Missing required parameter: 'drain'.", param="drain")
        if read_flag(request, "dry_run"):
            return JSONResponse({**await state(), "dry_run": True, "would": {"drain": drain}})
        action = "maintenance.began" if drain else "maintenance.ended"
        witness = audit.witness(request, action, subject=_subject, render=_document)
        await jobs.turn_maintenance(is_on=drain, witness=witness)
        return JSONResponse(await state())

    return routes


def _subject(_switch: Switch) -> str:
    return "maintenance"


def _document(switch: Switch) -> JsonObject:
    return {"drain": switch.is_on}
