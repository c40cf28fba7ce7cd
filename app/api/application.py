"""The public HTTP application: the routers, and around them what every request passes through."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from app.accounts.service import Accounts
from app.api.authentication import Authentication
from app.api.errors import ErrorBoundary, install_handlers
from app.api.openapi import complete
from app.api.request_id import RequestIds
from app.api.retirement import Retirements

_TITLE: Final = "Darkroom"


def create_app(
    routers: Sequence[APIRouter],
    accounts: Accounts,
    *,
    version: str,
    are_metrics_public: bool = False,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """Join the routers to one application in which everything not public by contract wants a key."""
    app = FastAPI(
        title=_TITLE,
        version=version,
        lifespan=lifespan,
        # A redirect to the path with or without a slash would be built from the Host header, which anybody can send.
        redirect_slashes=False,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        middleware=[
            Middleware(RequestIds),
            Middleware(Retirements),
            Middleware(ErrorBoundary),
            Middleware(Authentication, accounts=accounts, are_metrics_public=are_metrics_public),
        ],
    )
    install_handlers(app)
    for router in routers:
        app.include_router(router)
    written = app.openapi

    def documented() -> dict[str, Any]:
        # FastAPI writes it once and keeps it.
        return app.openapi_schema or complete(written())

    app.openapi = documented  # type: ignore[method-assign] # FastAPI's documented way to extend it
    return app
