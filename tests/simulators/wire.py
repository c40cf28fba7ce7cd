"""One listening port that speaks HTTP/1.1 well, and badly on request: resets, cuts and drips.

Frameworks hide the socket, and the faults that cost money happen there; so this stands on asyncio and h11.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import parse_qsl, urlsplit

import h11

_WRITE_BYTES: Final = 256 * 1024
_READ_BYTES: Final = 256 * 1024


class Reset(Exception):
    """The connection ends with a TCP reset, without another byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. Header names are in lower case; `body` is empty while only the head has been read."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer and the manner of its delivery."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes] | AsyncIterator[bytes] = ()
    """The body. A sequence is announced by its length and may share large parts; an iterator is sent as it comes."""
    cut_at: float | None = None
    """The connection ends after this fraction of the body (of an iterator: after its first piece)."""
    reset: bool = False
    """A cut connection ends with a reset rather than an orderly close."""
    drip_s: float | None = None
    """Seconds between the single bytes of the body."""


class Service(Protocol):
    """What answers on a port."""

    def accepted(self) -> None:
        """Look at a new connection. Raises Reset to end it unread."""
        ...

    def announced(self, request: Request) -> None:
        """Look at a request whose body is still unread. Raises Reset to end it there."""
        ...

    async def handle(self, request: Request) -> Answer:
        """Answer a complete request. Raises Reset to end it without an answer."""
        ...


class Origin:
    """A service on a port of the loopback interface, in the running event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._bugs: list[BaseException] = []
        self.url = ""

    async def start(self, port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close the port and every connection.

        Raises:
            ExceptionGroup: the service raised something while it answered: a bug in the simulator or the script.
        """
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        if self._bugs:
            raise BaseExceptionGroup("the simulator failed", self._bugs)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._bugs.append(bug)
            task.get_loop().call_exception_handler({"message": "the simulator failed", "exception": bug})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            self._service.accepted()
            while await self._exchange(connection, reader, writer):
                connection.start_next_cycle()
        except Reset:
            _reset(writer)
        except (ConnectionError, h11.RemoteProtocolError):
            pass  # The client left or broke off; what it bought is in the ledger.
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Serve one request; False when the connection is done."""
        head = await _next_event(connection, reader, writer)
        if not isinstance(head, h11.Request):
            return False
        parts = urlsplit(head.target.decode("ascii"))
        request = Request(
            method=head.method.decode("ascii"),
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
        )
        self._service.announced(request)
        body = []
        while isinstance(event := await _next_event(connection, reader, writer), h11.Data):
            body.append(bytes(event.data))
        if not isinstance(event, h11.EndOfMessage):
            return False
        answer = await self._service.handle(
            Request(
                method=request.method,
                path=request.path,
                query=request.query,
                headers=request.headers,
                body=b"".join(body),
            )
        )
        await _deliver(answer, connection, writer)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def _next_event(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> h11.Event | type[h11.PAUSED]:
    while (event := connection.next_event()) is h11.NEED_DATA:
        if connection.they_are_waiting_for_100_continue:
            writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        connection.receive_data(await reader.read(_READ_BYTES))
    assert not isinstance(event, type) or event is h11.PAUSED
    return event


async def _deliver(answer: Answer, connection: h11.Connection, writer: asyncio.StreamWriter) -> None:
    headers = dict(answer.headers)
    remaining: int | None = None
    if isinstance(answer.pieces, Sequence):
        length = sum(map(len, answer.pieces))
        headers["content-length"] = str(length)
        remaining = length if answer.cut_at is None else int(length * answer.cut_at)
    writer.write(
        connection.send(h11.Response(status_code=answer.status, headers=list(headers.items()))) or b""
    )
    if isinstance(answer.pieces, Sequence):
        for piece in answer.pieces:
            assert remaining is not None
            await _write(piece[:remaining], answer.drip_s, connection, writer)
            remaining -= min(remaining, len(piece))
    else:
        async for piece in answer.pieces:
            await _write(piece, answer.drip_s, connection, writer)
            if answer.cut_at is not None:
                break
    await writer.drain()
    if answer.cut_at is None:
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
    elif answer.reset:
        raise Reset


async def _write(
    piece: bytes, drip_s: float | None, connection: h11.Connection, writer: asyncio.StreamWriter
) -> None:
    for part in _slices(piece, _WRITE_BYTES if drip_s is None else 1):
        for data in connection.send_with_data_passthrough(h11.Data(data=part)) or ():
            writer.write(data)
        await writer.drain()
        if drip_s is not None:
            await asyncio.sleep(drip_s)


def _slices(piece: bytes, size: int) -> Iterator[bytes]:
    if len(piece) <= size:
        yield piece
        return
    for start in range(0, len(piece), size):
        yield piece[start : start + size]


def _reset(writer: asyncio.StreamWriter) -> None:
    # Lingering for no time makes the kernel answer with RST instead of FIN.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
