"""Server-sent events on the wire."""

import asyncio
from collections.abc import AsyncIterator

from app.api.sse import Event, EventStream, encode


def test_an_event_is_three_lines_whatever_its_text() -> None:
    event = Event(name="job.updated", id="7", data={"text": "two\nlines\u2028é"})
    assert encode(event) == b'event: job.updated\nid: 7\ndata: {"text":"two\\nlines\\u2028\\u00e9"}\n\n'


async def test_a_silent_stream_is_kept_alive_without_losing_its_next_event() -> None:
    release = asyncio.Event()

    async def events() -> AsyncIterator[Event]:
        await release.wait()
        yield Event(name="job.final", id="1", data={})

    stream = aiter(EventStream(events(), heartbeat_s=0.01).body_iterator)
    assert await anext(stream) == b"retry: 2000\n\n"
    assert [await anext(stream), await anext(stream)] == [b": keepalive\n\n"] * 2
    release.set()
    chunk = await anext(stream)
    while chunk == b": keepalive\n\n":
        chunk = await anext(stream)
    assert chunk == encode(Event(name="job.final", id="1", data={}))
    assert await anext(stream, None) is None
