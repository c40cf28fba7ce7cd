"""A TCP proxy that spoils what passes through it, in this process's loop: one for each edge between two parts.

The toxics bear the names that toxiproxy gave them (latency, bandwidth, slow_close, timeout, reset_peer, slicer,
limit_data, and `down`); `CutAfterRequest` and `Blackhole` are what a gateway that pays for answers needs besides.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit, urlunsplit

Way: TypeAlias = Literal["up", "down"]
"""`up` is from the client to the server, `down` is back."""

_CHUNK: Final = 65_536
_DIAL_S: Final = 5.0


class Cut(Exception):
    """The connection ends here: in order, or by a reset."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class Wire:
    """One connection through the proxy, as its toxics see it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = (client, server)
        self.passed: dict[Way, int] = {"up": 0, "down": 0}
        """Bytes let through so far."""
        self.is_marked = False
        """A request was seen whose answer is to be dropped."""

    def reset(self) -> None:
        """End both sides by RST, at once."""
        for end in self.ends:
            raw: socket.socket | None = end.get_extra_info("socket")
            if raw is not None and not end.is_closing():
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()

    def close(self) -> None:
        """End both sides in order."""
        for end in self.ends:
            end.close()


class Toxic:
    """What is done to the bytes of one direction. This one does nothing."""

    way: Way = "down"

    async def pieces(self, chunk: bytes, _wire: Wire) -> AsyncIterator[bytes]:
        """Yield what is passed on of a chunk, when it is time to.

        Raises:
            Cut: the connection ends here.
        """
        yield chunk

    async def closing(self) -> None:
        """Wait before the end of one side is passed on."""


@dataclass(slots=True)
class Latency(Toxic):
    """Passes everything on later."""

    latency_s: float
    jitter_s: float = 0.0
    way: Way = "down"

    async def pieces(self, chunk: bytes, _wire: Wire) -> AsyncIterator[bytes]:
        """Yield the chunk after its delay."""
        await asyncio.sleep(max(self.latency_s + random.uniform(-self.jitter_s, self.jitter_s), 0.0))
        yield chunk


@dataclass(slots=True)
class Bandwidth(Toxic):
    """Passes on so many bytes a second, at most."""

    bytes_per_s: float
    way: Way = "down"

    async def pieces(self, chunk: bytes, _wire: Wire) -> AsyncIterator[bytes]:
        """Yield the chunk in tenths of a second."""
        step = max(int(self.bytes_per_s / 10), 1)
        for start in range(0, len(chunk), step):
            piece = chunk[start : start + step]
            await asyncio.sleep(len(piece) / self.bytes_per_s)
            yield piece


@dataclass(slots=True)
class SlowClose(Toxic):
    """Passes the end of one side on later."""

    delay_s: float
    way: Way = "down"

    async def closing(self) -> None:
        """Wait."""
        await asyncio.sleep(self.delay_s)


@dataclass(slots=True)
class Timeout(Toxic):
    """Swallows everything, and closes `timeout_s` after the first bytes; None: never."""

    timeout_s: float | None
    way: Way = "down"

    async def pieces(self, _chunk: bytes, _wire: Wire) -> AsyncIterator[bytes]:
        """Yield nothing."""
        yield b""
        if self.timeout_s is not None:
            await asyncio.sleep(self.timeout_s)
            raise Cut(reset=False)


@dataclass(slots=True)
class ResetPeer(Toxic):
    """Resets the connection once so many bytes have passed."""

    after_bytes: int = 0
    way: Way = "down"

    async def pieces(self, chunk: bytes, wire: Wire) -> AsyncIterator[bytes]:
        """Yield what still may pass."""
        left = self.after_bytes - wire.passed[self.way]
        if len(chunk) > left:
            yield chunk[: max(left, 0)]
            raise Cut(reset=True)
        yield chunk


@dataclass(slots=True)
class Slicer(Toxic):
    """Passes small pieces on, with a pause after each."""

    size_bytes: int
    delay_s: float = 0.0
    way: Way = "down"

    async def pieces(self, chunk: bytes, _wire: Wire) -> AsyncIterator[bytes]:
        """Yield the pieces."""
        for start in range(0, len(chunk), self.size_bytes):
            yield chunk[start : start + self.size_bytes]
            await asyncio.sleep(self.delay_s)


@dataclass(slots=True)
class LimitData(Toxic):
    """Closes the connection in order once so many bytes have passed."""

    limit_bytes: int
    way: Way = "down"

    async def pieces(self, chunk: bytes, wire: Wire) -> AsyncIterator[bytes]:
        """Yield what still may pass."""
        left = self.limit_bytes - wire.passed[self.way]
        yield chunk[: max(left, 0)]
        if len(chunk) >= left:
            raise Cut(reset=False)


@dataclass(slots=True)
class Blackhole(Toxic):
    """Swallows everything of one direction for as long as it is there, as a broken route would: nobody is told."""

    way: Way = "down"

    async def pieces(self, _chunk: bytes, _wire: Wire) -> AsyncIterator[bytes]:
        """Yield nothing."""
        yield b""


@dataclass(slots=True)
class CutAfterRequest(Toxic):
    """Lets a request through, waits until the server has answered, drops the answer and resets the connection.

    With `lambda data: b"COMMIT" in data` before a Postgres, a transaction lands and its client never learns it.
    """

    is_meant: Callable[[bytes], bool]
    times: int = 1
    """How many connections are cut so, before the toxic does nothing more."""
    way: Way = "up"

    async def pieces(self, chunk: bytes, wire: Wire) -> AsyncIterator[bytes]:
        """Yield the chunk, and mark its connection if it is one that is meant."""
        if self.times > 0 and self.is_meant(chunk):
            self.times -= 1
            wire.is_marked = True
        yield chunk


class FaultProxy:
    """Listens on a loopback port for one server. Faults begin and end while connections are open."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        """Where the server is, past this proxy."""
        self._server: asyncio.Server | None = None
        self._wires: set[Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.toxics: list[Toxic] = []
        self.is_down = False
        self.port = 0

    @classmethod
    def before(cls, url: str) -> Self:
        """A proxy for the server that a URL points to."""
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 80)

    def url(self, original: str) -> str:
        """The same URL by way of this proxy."""
        parts = urlsplit(original)
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._wires)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=_CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def toxic(self, toxic: Toxic) -> Iterator[Toxic]:
        """Put a toxic in for a while; open connections feel it with their next bytes."""
        self.toxics.append(toxic)
        try:
            yield toxic
        finally:
            self.toxics.remove(toxic)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Refuse connections for a while, the open ones first."""
        self.is_down = True
        self.cut()
        try:
            yield
        finally:
            self.is_down = False

    def cut(self) -> int:
        """Reset every open connection; how many."""
        wires = list(self._wires)
        for wire in wires:
            wire.reset()
        return len(wires)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: asyncio's own complains of being cancelled.
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_DIAL_S):
                far_reader, far_writer = await asyncio.open_connection(*self.target, limit=_CHUNK)
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        wire = Wire(writer, far_writer)
        self._wires.add(wire)
        if self.is_down:
            wire.reset()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump("up", reader, far_writer, wire))
                both.create_task(self._pump("down", far_reader, writer, wire))
        except* Cut as cuts:
            if any(cut.reset for cut in cuts.exceptions if isinstance(cut, Cut)):
                wire.reset()
        except* OSError:
            wire.reset()
        finally:
            wire.close()
            self._wires.discard(wire)

    async def _pump(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            if way == "down" and wire.is_marked:
                raise Cut(reset=True)
            async for piece in self._spoiled(chunk, [item for item in self.toxics if item.way == way], wire):
                wire.passed[way] += len(piece)
                writer.write(piece)
                await writer.drain()
        for toxic in [item for item in self.toxics if item.way == way]:
            await toxic.closing()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _spoiled(self, chunk: bytes, toxics: list[Toxic], wire: Wire) -> AsyncIterator[bytes]:
        """What is left of a chunk after each of the toxics in turn."""
        if not toxics:
            yield chunk
            return
        first, *others = toxics
        async for piece in first.pieces(chunk, wire):
            async for passed in self._spoiled(piece, others, wire):
                yield passed
