"""What answers say of a model that its vendor has announced to retire: `Deprecation` and `Sunset`.

They tell; they refuse nothing. A model past its date is asked for as long as the catalog has routes for it, because
resellers may keep it and only a vendor's own answer shows that it is gone.
"""

from datetime import UTC, date, datetime, time
from email.utils import format_datetime

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.catalog.entries import Model


def announce(request: Request, model: Model | None) -> None:
    """Let whatever answers this request, an error too, say when its model retires; None is a model that is not here."""
    if model is not None:
        request.scope["state"]["retirement"] = retirement_headers(model)


def retirement_headers(model: Model) -> dict[str, str]:
    """Since when the model is deprecated, and when it goes; nothing for one that stays.

    Source: RFC 9745 (`Deprecation`, a date in Unix seconds), RFC 8594 (`Sunset`, an HTTP date).
    """
    if model.shutdown_date is None:
        return {}
    # Without a date of its own, the announcement is known to be no later than the end.
    since = model.deprecation_date or model.shutdown_date
    return {
        "deprecation": f"@{int(_midnight(since).timestamp())}",
        "sunset": format_datetime(_midnight(model.shutdown_date), usegmt=True),
    }


class Retirements:
    """ASGI middleware that adds to each answer what was announced of its model."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(scope.get("state", {}).get("retirement", {}))
            await send(message)

        await self._app(scope, receive, told)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
