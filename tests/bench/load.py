"""A client that costs next to nothing: HTTP/1.1 over bare streams, bodies counted and thrown away as they come."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

_READ_BYTES: Final = 256 * 1024
_KEPT_BYTES: Final = 64 * 1024
_PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One request and what came of it."""

    status: int
    """0: the connection broke."""
    seconds: float
    size_bytes: int
    """Of the answer's body."""
    start: bytes
    """The first bytes of the body."""

    def json(self) -> Any:
        """The body of a short answer, parsed."""
        return json.loads(self.start)


class Connection:
    """One kept-alive connection to an HTTP server on loopback."""

    def __init__(self, base_url: str, api_key: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path
        self._api_key = api_key
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def post(self, path: str, body: Mapping[str, Any]) -> Shot:
        """Send a JSON document, and read the whole answer."""
        return await self._ask("POST", path, json.dumps(body).encode())

    async def get(self, path: str) -> Shot:
        """Ask for a path, and read the whole answer."""
        return await self._ask("GET", path, b"")

    async def _ask(self, method: str, path: str, body: bytes) -> Shot:
        head = (
            f"{method} {self._path}{path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"authorization: Bearer {self._api_key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                status, size_bytes, start = await self._exchange(head.encode() + body)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self._leave()
            status, size_bytes, start = 0, 0, b""
        return Shot(status=status, seconds=time.perf_counter() - began, size_bytes=size_bytes, start=start)

    async def _exchange(self, request: bytes) -> tuple[int, int, bytes]:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                self._host, self._port, limit=4 * _READ_BYTES
            )
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in head:
            size_bytes, start = await self._read_chunks(self._reader)
        else:
            length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            size_bytes, start = int(length or 0), b""
            start = await self._read(self._reader, size_bytes)
        if b"\r\nconnection: close" in head:
            self._leave()
        return status, size_bytes, start

    @staticmethod
    async def _read(reader: asyncio.StreamReader, length: int) -> bytes:
        start = b""
        while length:
            piece = await reader.read(min(length, _READ_BYTES))
            if not piece:
                raise asyncio.IncompleteReadError(b"", length)
            if len(start) < _KEPT_BYTES:
                start += piece[:_KEPT_BYTES]
            length -= len(piece)
        return start

    async def _read_chunks(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        size_bytes, start = 0, b""
        while length := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            piece = await self._read(reader, length)
            await reader.readexactly(2)
            size_bytes += length
            if len(start) < _KEPT_BYTES:
                start += piece
        await reader.readuntil(b"\r\n")
        return size_bytes, start

    def _leave(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def fire(
    base_url: str, api_key: str, bodies: Sequence[Mapping[str, Any]], *, in_flight: int, path: str
) -> tuple[list[Shot], float]:
    """Post every body, so many at a time, each over its own kept-alive connection; the answers, and the seconds."""
    left = iter(bodies)
    shots: list[Shot] = []

    async def gun() -> None:
        async with Connection(base_url, api_key) as connection:
            for body in left:
                shots.append(await connection.post(path, body))  # noqa: PERF401 - shared with the other guns

    began = time.perf_counter()
    await asyncio.gather(*(gun() for _ in range(in_flight)))
    return shots, time.perf_counter() - began


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
