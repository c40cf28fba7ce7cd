"""`POST /v1/images/variations`: retired by its inventor together with the models that had it."""

from fastapi import APIRouter, Request

from app.api.errors import NotFound
from app.api.schemas import BEARER, ERRORS


def router() -> APIRouter:
    """Build the endpoint, which says where to go instead."""
    routes = APIRouter(tags=["images"], dependencies=[BEARER])

    @routes.post("/v1/images/variations", summary="Retired", deprecated=True, responses=ERRORS)
    async def vary(_request: Request) -> None:
        """Refuse: no current model makes variations."""
        raise NotFound(
            "/v1/images/variations is retired: no current model makes variations. Send the picture to "
            "/v1/images/edits, with a prompt that says what to vary."
        )

    return routes
