"""`/healthz` tells that the process lives, `/readyz` whether it can serve."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.api.schemas import Health
from app.db.engine import StoreUnavailable
from app.domain.errors import GatewayError
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

Check: TypeAlias = Callable[[], Awaitable[None]]
"""Proves that a part works, or raises `StoreUnavailable` or a `GatewayError` that says what is wrong."""

_CHECK_S: Final = 5.0


def router(checks: Mapping[str, Check], warnings: Callable[[], Sequence[str]]) -> APIRouter:
    """Build the endpoints.

    Args:
        checks: the parts that must work, by name, in the order in which they are shown.
        warnings: sentences on what works, but not as configured; they do not make the process unready.
    """
    routes = APIRouter(tags=["operation"])

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz", summary="Is the process alive?")
    async def healthz(_request: Request) -> Response:
        """Answer, which is all that a living process has to do."""
        return JSONResponse({"status": "ok"})

    @routes.head("/readyz", include_in_schema=False)
    @routes.get(
        "/readyz",
        summary="Can the process serve?",
        responses={
            200: {"model": Health, "description": "It can."},
            503: {"model": Health, "description": "It cannot, and says why."},
        },
    )
    async def readyz(_request: Request) -> Response:
        """Check every part that serving needs."""
        found = await _run(checks)
        is_ready = all(state == "ok" for state in found.values())
        body = {"status": "ok" if is_ready else "unavailable", "checks": found, "warnings": list(warnings())}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    return routes


async def _run(checks: Mapping[str, Check]) -> dict[str, str]:
    running = {name: asyncio.ensure_future(_called(check)) for name, check in checks.items()}
    if running:
        await asyncio.wait(running.values(), timeout=_CHECK_S)
    for task in running.values():
        task.cancel()
    return {name: _state(name, task) for name, task in running.items()}


async def _called(check: Check) -> None:
    await check()


def _state(name: str, task: asyncio.Task[None]) -> str:
    if not task.done():
        return f"no answer within {_CHECK_S:g} s"
    match task.exception():
        case None:
            return "ok"
        case StoreUnavailable() | GatewayError() as exc:
            return str(exc)
        case asyncio.CancelledError() as exc:
            raise exc
        case BaseException() as exc:
            LOG.error("ready.check_failed", check=name, exc_info=exc)
            return "it failed; this process's log tells why"
