"""Keeps the null character out: it is in no id, and Postgres takes no text that holds one."""

from typing import Final
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain.errors import InvalidValue

_NULL: Final = "\x00"
_NO_CHARACTER: Final = "\ufffd"
"""What stands for bytes of a path that are no text already; an id that holds it is nobody's."""


class NoNulls:
    """ASGI middleware: a path with a null is one of an unknown id, and a query with one is refused by name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            InvalidValue: a parameter of the query holds a null.
        """
        if scope["type"] == "http":
            if b"%00" in scope["query_string"]:
                _refuse_null(scope["query_string"].decode("latin-1"))
            if _NULL in scope["path"]:
                scope = {**scope, "path": scope["path"].replace(_NULL, _NO_CHARACTER)}
        await self._app(scope, receive, send)


def _refuse_null(query: str) -> None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if _NULL in name or _NULL in value:
            shown = name.replace(_NULL, "?")
            raise InvalidValue(f"Invalid '{shown}': the text holds a null character.", param=shown)
