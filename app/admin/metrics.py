"""`/metrics`: what this process has counted, for Prometheus."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.admin.schemas import ADMIN_BEARER
from app.kit.metrics import CONTENT_TYPE, Registry, exposition

_EXAMPLE: Final = 'darkroom_jobs_open{status="queued"} 0.0\n'


def router(registry: Registry, refresh: Callable[[], Awaitable[None]], *, is_public: bool) -> APIRouter:
    """Build the endpoint.

    Args:
        registry: what is told.
        refresh: brings those gauges up to date that are read when somebody asks; takes seconds at most.
        is_public: whether it is answered without a key.
    """
    routes = APIRouter(tags=["operation"], dependencies=[] if is_public else [ADMIN_BEARER])

    @routes.get(
        "/metrics",
        summary="Look at the metrics",
        response_class=Response,
        responses={
            200: {
                "description": "Prometheus' text format.",
                "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
            }
        },
    )
    async def metrics(_request: Request) -> Response:
        """Tell what this process has counted. It answers during an outage, too, without what cannot be known then."""
        await refresh()
        return Response(await asyncio.to_thread(exposition, registry), media_type=CONTENT_TYPE)

    return routes
