"""Connections for the HTTP client, which take from the kernel no more than they are asked for.

Whoever reads a large body slowly holds one piece of it: the rest stays in the kernel's buffer and, once that is full,
with the peer.
"""

import asyncio
import contextlib
import select
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import httpcore2

_NOTHING: Final = b""


class Tcp:
    """Opens connections to addresses."""

    async def connect(
        self,
        address: str,
        port: int,
        timeout_s: float | None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> "TcpStream":
        """Connect to a literal IP address.

        Raises:
            ConnectError: nobody listens there, or the connection was reset at once.
            ConnectTimeout: nobody answered in time.
        """
        loop = asyncio.get_running_loop()
        try:
            async with _within(timeout_s, httpcore2.ConnectTimeout):
                transport, wire = await loop.create_connection(_Wire, address, port)
        except OSError as exc:
            raise httpcore2.ConnectError(str(exc)) from exc
        stream = TcpStream(transport, wire)
        raw = transport.get_extra_info("socket")
        for option in socket_options or ():
            raw.setsockopt(*option)
        return stream


class TcpStream(httpcore2.AsyncNetworkStream):
    """A connection, in clear or, after `start_tls`, encrypted."""

    def __init__(self, transport: asyncio.Transport, wire: "_Wire") -> None:
        self._transport = transport
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - see below
        """Return what has come, or what comes next; nothing once the peer has ended.

        It is as much as the loop took from the kernel in one go, up to 256 kB, whatever `max_bytes` says: a picture
        passes many layers with each piece.

        Raises:
            ReadError: the connection broke.
            ReadTimeout: nothing came in time.
        """
        wire = self._wire
        if not wire.received and not wire.is_over:
            async with _within(timeout, httpcore2.ReadTimeout):
                await wire.next_piece(self._transport)
        if wire.received:
            return wire.take()
        if wire.broken_by is not None:
            raise httpcore2.ReadError(str(wire.broken_by)) from wire.broken_by
        return _NOTHING

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send, and wait until the kernel has all of it.

        Raises:
            WriteError: the connection broke.
            WriteTimeout: the peer did not take it in time.
        """
        if not buffer:
            return
        if not self._wire.is_lost:
            self._transport.write(buffer)
            if not self._wire.has_room:
                async with _within(timeout, httpcore2.WriteTimeout):
                    await self._wire.sent()
        if self._wire.is_lost:
            raise httpcore2.WriteError("the connection is gone") from self._wire.broken_by

    async def aclose(self) -> None:
        """Hang up. Nothing is lost by it: whatever was written is with the kernel."""
        self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Encrypt the connection; it is closed when that fails, or is given up from outside.

        Raises:
            ConnectError: the peer is not who it should be, or does not speak TLS.
            ConnectTimeout: it did not answer in time.
        """
        loop = asyncio.get_running_loop()
        self._wire.is_encrypted = True
        try:
            async with _within(timeout, httpcore2.ConnectTimeout):
                transport = await loop.start_tls(
                    self._transport, self._wire, ssl_context, server_hostname=server_hostname
                )
        except OSError as exc:  # an SSLError is one too
            self._transport.abort()
            raise httpcore2.ConnectError(str(exc)) from exc
        except BaseException:
            self._transport.abort()
            raise
        if transport is None:
            raise httpcore2.ConnectError("the connection was reset during the TLS handshake")
        self._wire.begin(transport)
        return TcpStream(transport, self._wire)

    def get_extra_info(self, info: str) -> Any:
        """`ssl_object`, `client_addr`, `server_addr`, `socket`, or whether it `is_readable`; None for anything else.

        Raises:
            ConnectError: the connection was reset as soon as it was made. The library asks for its `ssl_object`
                before anything is sent.
        """
        match info:
            case "is_readable":
                return self._is_readable()
            case "client_addr":
                return self._wire.own_address
            case "server_addr":
                return self._wire.peer_address
            case "ssl_object":
                # Nobody speaks to an HTTP client first; once it is encrypted, there may be tickets for the next time.
                if self._wire.is_over or (not self._wire.is_encrypted and self._is_readable()):
                    raise httpcore2.ConnectError("the connection was reset as soon as it was made")
                return self._transport.get_extra_info(info)
            case "socket":
                return self._transport.get_extra_info(info)
            case _:
                return None

    def _is_readable(self) -> bool:
        """Whether a read would return at once; so it would of a connection whose peer has gone."""
        wire = self._wire
        if wire.received or wire.is_over or self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))


class _Wire(asyncio.Protocol):
    """What a connection has received and not handed over yet. It reads only while somebody waits for the next piece."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.is_over = False
        """Nothing comes any more."""
        self.is_lost = False
        """Nothing goes out any more either."""
        self.broken_by: Exception | None = None
        self.is_encrypted = False
        self.own_address: Any = None
        self.peer_address: Any = None
        self._transport: asyncio.Transport | None = None
        self.has_room = True
        """Whether the kernel has all that was written."""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # While it surely has a socket; afterwards the peer may have reset it.
        self.own_address = transport.get_extra_info("sockname")
        self.peer_address = transport.get_extra_info("peername")
        self.begin(transport)  # type: ignore[arg-type]  # as asyncio's own protocols take it

    def begin(self, transport: asyncio.Transport) -> None:
        """Take over a transport, the first or the one that encrypts."""
        self._transport = transport
        transport.set_write_buffer_limits(0)
        if not self.is_over:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        if self._transport is not None:
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self.is_over = True
        _wake(self._reader)
        # What was asked may still be on its way out. Of an encrypted connection neither half can end alone.
        return not self.is_encrypted

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = self.is_lost = True
        self.broken_by = exc
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self.has_room = False

    def resume_writing(self) -> None:
        self.has_room = True
        _wake(self._writer)

    def take(self) -> bytes:
        """Hand over what has been received."""
        taken = self.received[0] if len(self.received) == 1 else b"".join(self.received)
        self.received.clear()
        return taken

    async def next_piece(self, transport: asyncio.Transport) -> None:
        """Wait until something has been received, or nothing will be."""
        self._reader = asyncio.get_running_loop().create_future()
        transport.resume_reading()
        try:
            await self._reader
        finally:
            self._reader = None
            if not self.is_over:
                transport.pause_reading()

    async def sent(self) -> None:
        """Wait until the kernel has all that was written, or the connection is lost."""
        if self.has_room or self.is_lost:
            return
        self._writer = asyncio.get_running_loop().create_future()
        try:
            await self._writer
        finally:
            self._writer = None


def _wake(sleeper: asyncio.Future[None] | None) -> None:
    if sleeper is not None and not sleeper.done():
        sleeper.set_result(None)


@contextlib.asynccontextmanager
async def _within(timeout_s: float | None, error: type[Exception]) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as exc:
        raise error("it took too long") from exc
