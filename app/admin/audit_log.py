"""`GET /admin/v1/audit`: what operators did."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.admin.audit import PROCESS, Audit
from app.admin.parameters import CHECKED_ACT, read_page
from app.admin.records import AuditEntry
from app.admin.rendering import listing, seconds
from app.admin.schemas import ADMIN_BEARER, PAGE
from app.api.schemas import ERRORS, query
from app.kit.json import JsonObject


def router(audit: Audit) -> APIRouter:
    """Build the endpoint."""
    routes = APIRouter(
        prefix="/admin/v1/audit", tags=["audit"], dependencies=[ADMIN_BEARER, CHECKED_ACT], responses=ERRORS
    )

    @routes.get(
        "",
        summary="List what operators did, newest first",
        openapi_extra={
            "parameters": [query("object", "Only what was done to this id or name.", {"type": "string"}), *PAGE]
        },
        responses={200: {"description": "A page of entries."}},
    )  # fmt: skip
    async def search(request: Request) -> Response:
        """List what operators did."""
        after, limit = read_page(request)
        subject = request.query_params.get("object")
        found, has_more = await audit.list(subject=subject, after=after, limit=limit)
        return JSONResponse(listing(found, has_more, _document))

    return routes


def _actor(entry: AuditEntry) -> JsonObject:
    if entry.actor_id.startswith(PROCESS):
        return {"key_id": None, "key_name": None, "process": entry.actor_id.removeprefix(PROCESS)}
    return {"key_id": entry.actor_id, "key_name": entry.actor_name}


def _document(entry: AuditEntry) -> JsonObject:
    return {
        "id": entry.id,
        "at": seconds(entry.at),
        "actor": _actor(entry),
        "action": entry.action,
        "object": entry.object,
        "before": entry.before,
        "after": entry.after,
        "request_id": entry.request_id,
    }
