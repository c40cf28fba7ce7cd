"""The public HTTP application: the routers, and around them what every request passes through."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from app.accounts.service import Accounts
from app.api import documentation
from app.api.authentication import Authentication
from app.api.errors import ErrorBoundary, install_handlers
from app.api.instruments import HttpInstruments
from app.api.nulls import NoNulls
from app.api.observation import Observation
from app.api.openapi import complete
from app.api.request_id import RequestIds
from app.api.retirement import Retirements
from app.api.security_headers import SecurityHeaders
from app.kit.tracing import NoTracing, Tracing

_TITLE: Final = "Darkroom"


def create_app(
    routers: Sequence[APIRouter],
    accounts: Accounts,
    *,
    version: str,
    public_url: str = "",
    are_metrics_public: bool = False,
    instruments: HttpInstruments | None = None,
    tracing: Tracing | None = None,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """Join the routers to one application in which everything not public by contract wants a key."""
    app = FastAPI(
        title=_TITLE,
        version=version,
        lifespan=lifespan,
        # A redirect to the path with or without a slash would be built from the Host header, which anybody can send.
        redirect_slashes=False,
        # FastAPI's own pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # The framework's own tells of whole queries, signatures included, and of the texts of exceptions; and an
        # environment variable would turn it on.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        middleware=[
            Middleware(RequestIds),
            Middleware(
                Observation, instruments=instruments or HttpInstruments(), tracing=tracing or NoTracing()
            ),
            Middleware(SecurityHeaders),
            Middleware(Retirements),
            Middleware(ErrorBoundary, public_url=public_url),
            Middleware(Authentication, accounts=accounts, are_metrics_public=are_metrics_public),
            Middleware(NoNulls),
        ],
    )
    install_handlers(app)
    for router in (documentation.router(), *routers):
        app.include_router(router)
    written = app.openapi

    def documented() -> dict[str, Any]:
        # FastAPI writes it once and keeps it.
        return app.openapi_schema or complete(written())

    app.openapi = documented  # type: ignore[method-assign] # FastAPI's documented way to extend it
    return app
