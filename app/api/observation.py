"""Counts and traces every request, whatever becomes of it."""

import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.instruments import GONE, UNMATCHED, HttpInstruments
from app.kit.tracing import SpanKind, Tracing

_TRACE_PARENT: Final = b"traceparent"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observation:
    """ASGI middleware, around those that may answer by themselves."""

    def __init__(self, app: ASGIApp, instruments: HttpInstruments, tracing: Tracing) -> None:
        self._app = app
        self._instruments = instruments
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as a part of the client's trace if it sent one along."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A client may call its method whatever it likes.
        method: str = scope["method"] if scope["method"] in _METHODS else "other"
        status = GONE

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._instruments.began()
        began_at = time.perf_counter()
        try:
            with self._tracing.span(method, kind=SpanKind.SERVER, parent=_trace_parent(scope)):
                try:
                    await self._app(scope, receive, watched)
                finally:
                    self._tell(method, _route(scope), status)
        finally:
            self._instruments.ended(method, _route(scope), status, time.perf_counter() - began_at)

    def _tell(self, method: str, route: str, status: int) -> None:
        self._tracing.rename(f"{method} {route}")
        self._tracing.note(method=method, route=route, status=status)
        if status >= 500:
            self._tracing.fail(str(status))


def _route(scope: Scope) -> str:
    """The template of the route that was chosen, such as `/v1/jobs/{job_id}`."""
    return getattr(scope.get("route"), "path", None) or UNMATCHED


def _trace_parent(scope: Scope) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == _TRACE_PARENT), None)
