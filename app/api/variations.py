"""`POST /v1/images/variations`: retired by its inventor together with the models that had it."""

from typing import Any, Final

from fastapi import APIRouter, Request

from app.api.errors import NotFound
from app.api.schemas import BEARER, ErrorAnswer

_RETIRED: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": ErrorAnswer, "description": "Always: where to go instead."},
}


def router() -> APIRouter:
    """Build the endpoint, which says where to go instead."""
    routes = APIRouter(tags=["images"], dependencies=[BEARER])

    @routes.post(
        "/v1/images/variations", summary="Retired", deprecated=True, status_code=404, responses=_RETIRED
    )
    async def vary(_request: Request) -> None:
        """Refuse: no current model makes variations."""
        raise NotFound(
            "/v1/images/variations is retired: no current model makes variations. Send the picture to "
            "/v1/images/edits, with a prompt that says what to vary."
        )

    return routes
