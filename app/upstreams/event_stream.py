"""Reads a vendor's stream of server-sent events, whose data are JSON documents with pictures in them.

The pictures go into spool files while they arrive, so an event takes a few buffers, whatever its size.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final

from app.kit.spool import SpoolLimits, SpoolMalformed, SpoolParser
from app.upstreams.contract import ServerEvent

_DATA: Final = b"data:"
_DONE: Final = b"[DONE]"
_LINE_BYTES: Final = 8192
"""The longest line that holds no data: an event's name, an id, a comment."""


async def read_events(
    chunks: AsyncIterator[bytes], directory: Path, limits: SpoolLimits
) -> AsyncGenerator[ServerEvent]:
    """Yield each event as its last byte arrives; ends with the stream, or with the event `[DONE]`.

    The files behind an event's blobs are in `directory`, and are the caller's to remove.

    Raises:
        SpoolOverflow: one event is larger than a limit.
        SpoolMalformed: the data of an event are no JSON document, or a line has no end.
    """
    reader = _Reader(directory, limits)
    try:
        async for chunk in chunks:
            for event in reader.feed(chunk):
                if event is None:
                    return
                yield event
    finally:
        reader.discard()


class _Reader:
    """Cuts the stream into lines; what follows `data:` is parsed as it comes, without waiting for its end."""

    def __init__(self, directory: Path, limits: SpoolLimits) -> None:
        self._directory = directory
        self._limits = limits
        self._line = bytearray()
        self._in_data = False
        self._name = ""
        self._parser: SpoolParser | None = None
        self._head = b""

    def feed(self, chunk: bytes) -> list[ServerEvent | None]:
        """Take the next piece of the stream; the events that it completes, None for the end."""
        events: list[ServerEvent | None] = []
        position = 0
        while position < len(chunk):
            end = chunk.find(b"\n", position)
            piece = chunk[position:] if end < 0 else chunk[position:end]
            position = len(chunk) if end < 0 else end + 1
            self._take(piece)
            if end >= 0:
                events += self._end_line()
        return events

    def discard(self) -> None:
        """Remove the files of an event that never came to its end."""
        if self._parser is not None:
            self._parser.discard()

    def _take(self, piece: bytes) -> None:
        if self._in_data:
            self._take_data(piece)
            return
        self._line += piece
        if self._line.startswith(_DATA):
            self._in_data = True
            data = bytes(self._line[len(_DATA) :])
            self._line.clear()
            self._take_data(data)
        elif len(self._line) > _LINE_BYTES:
            raise SpoolMalformed("a line of the event stream has no end")

    def _take_data(self, piece: bytes) -> None:
        if len(self._head) < len(_DONE) + 2:
            self._head += piece[: len(_DONE) + 2]
        if self._parser is None:
            self._parser = SpoolParser(self._directory, self._limits)
        self._parser.feed(piece)

    def _end_line(self) -> list[ServerEvent | None]:
        if self._in_data:
            self._in_data = False
            if self._parser is not None:
                self._parser.feed(b"\n")
            return []
        line = bytes(self._line).rstrip(b"\r")
        self._line.clear()
        if line:
            field, _, value = line.partition(b":")
            if field == b"event":
                self._name = value.strip().decode(errors="replace")
            return []
        return self._end_event()

    def _end_event(self) -> list[ServerEvent | None]:
        parser, name, head = self._parser, self._name, self._head
        self._parser, self._name, self._head = None, "", b""
        if parser is None:
            return []  # a comment, or a name without data
        if head.strip() == _DONE:
            parser.discard()
            return [None]
        return [ServerEvent(name=name, data=parser.close())]
