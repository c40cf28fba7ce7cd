"""`/admin/v1/config`: the catalog in force; checked before it is loaded, loaded by every process."""

from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.admin.configuration import Configuration, mistake_document
from app.admin.parameters import CHECKED_ACT, read_flag
from app.admin.rendering import seconds
from app.admin.schemas import ADMIN_BEARER, DRY_RUN, CheckedConfig, Config, ReloadedConfig, answer
from app.api.bodies import MAX_JSON_BYTES, read_bytes
from app.api.models import model_object
from app.api.schemas import ERRORS
from app.catalog.current import CurrentCatalog
from app.jobs.catalogs import Catalogs

_YAML: Final[dict[str, Any]] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/yaml": {
                # Of text that is no catalog, the answer says so; it is not refused.
                "schema": {"description": "The file; this process's own when there is none."},
                "example": "version: 1\nupstreams: {}\nmodels: {}\n",
            }
        },
    }
}


def router(catalogs: Catalogs, current: CurrentCatalog, configuration: Configuration) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(
        prefix="/admin/v1/config",
        tags=["configuration"],
        dependencies=[ADMIN_BEARER, CHECKED_ACT],
        responses=ERRORS,
    )

    @routes.get("", summary="Show the catalog in force", responses=answer(Config, "The catalog."))
    async def show(_request: Request) -> Response:
        """Show the catalog that this process serves from, and what is stored as being in force."""
        catalog = current.get()
        found = await catalogs.in_force()
        stored, content = found if found is not None else (None, None)
        return JSONResponse(
            {
                "version": catalog.version,
                "in_force": None if stored is None else stored.version,
                "loaded_at": None if stored is None else seconds(stored.loaded_at),
                "content": content,
                "upstreams": {name: asdict(item) for name, item in catalog.upstreams.items()},
                "models": {name: model_object(item)["darkroom"] for name, item in catalog.models.items()},
            }
        )

    @routes.post(
        "/check",
        summary="Look for mistakes in a catalog",
        openapi_extra=_YAML,
        responses=answer(CheckedConfig, "What was found."),
    )
    async def check(request: Request) -> Response:
        """Look for mistakes in a catalog handed in as YAML, or in this process's own file when there is no body.

        Nothing is put in force.
        """
        content = await read_bytes(request, max_bytes=MAX_JSON_BYTES)
        version, mistakes = await configuration.check(request, content or None)
        found = [mistake_document(item) for item in mistakes]
        return JSONResponse({"valid": not found, "version": version, "mistakes": found})

    @routes.post(
        "/reload",
        summary="Load the catalog file again, in every process",
        openapi_extra={"parameters": [DRY_RUN]},
        responses=answer(ReloadedConfig, "What is in force now."),
    )
    async def reload(request: Request) -> Response:
        """Load the catalog file of this process, and put it in force in every process."""
        if read_flag(request, "dry_run"):
            version = await configuration.would_load()
            found = await catalogs.in_force()
            before = current.get().version if found is None else found[0].version
            document = {
                "version": before,
                "loaded_at": None if found is None else seconds(found[0].loaded_at),
                "dry_run": True,
                "would": {"version": version, "is_changed": version != before},
            }
            return JSONResponse(document)
        stored = await configuration.reload(request)
        return JSONResponse({"version": stored.version, "loaded_at": seconds(stored.loaded_at)})

    return routes
