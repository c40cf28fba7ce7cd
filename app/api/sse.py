"""Server-sent events: a stream of named events with ids, kept alive by comments while nothing happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from starlette.responses import StreamingResponse

HEARTBEAT_S: Final = 15.0
"""Between two comments; proxies close connections that are silent for longer than half a minute."""
_RECONNECT_AFTER_MS: Final = 2000
HEARTBEAT: Final = b": keepalive\n\n"
"""A comment, which every client skips."""
HEADERS: Final = {
    "cache-control": "no-store",
    # nginx would otherwise collect events until its buffer is full.
    "x-accel-buffering": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event."""

    name: str
    id: str
    """What a client that was cut off sends as `Last-Event-ID`; no line break in it."""
    data: object
    """Any JSON document."""


class EventStream(StreamingResponse):
    """The answer that carries events until the source ends or the client goes away."""

    def __init__(self, events: AsyncIterator[Event], *, heartbeat_s: float = HEARTBEAT_S) -> None:
        super().__init__(_stream(events, heartbeat_s), media_type="text/event-stream", headers=dict(HEADERS))


def encode(event: Event) -> bytes:
    """Write one event."""
    # JSON without line breaks, so that one `data` line holds it.
    data = json.dumps(event.data, separators=(",", ":"), allow_nan=False)
    return f"event: {event.name}\nid: {event.id}\ndata: {data}\n\n".encode("ascii")


async def _stream(events: AsyncIterator[Event], heartbeat_s: float) -> AsyncIterator[bytes]:
    yield f"retry: {_RECONNECT_AFTER_MS}\n\n".encode("ascii")
    upcoming: asyncio.Task[Event | None] | None = None
    try:
        while True:
            # A task of its own, so that the heartbeat does not cancel what it waits for.
            upcoming = upcoming or asyncio.ensure_future(_next(events))
            await asyncio.wait([upcoming], timeout=heartbeat_s)
            if not upcoming.done():
                yield HEARTBEAT
                continue
            event, upcoming = upcoming.result(), None
            if event is None:
                return
            yield encode(event)
    finally:
        if upcoming is not None:
            upcoming.cancel()


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)
