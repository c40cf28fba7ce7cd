"""Connections that hold one piece at a time, on both event loops that the gateway runs on."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore2
import pytest
import uvloop

from app.kit.tcp import Tcp, TcpStream
from tests.kit.certificates import a_certificate

ALL = 64 * 1024 * 1024
PIECE = 256 * 1024
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test on a loop of its own."""

    def on_loop(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return on_loop


@asynccontextmanager
async def connected(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[TcpStream]:
    """A connection to a server that does as it is told."""
    is_over = asyncio.Event()

    async def serve_until_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        await is_over.wait()
        writer.transport.abort()

    server = await asyncio.start_server(serve_until_the_end, "127.0.0.1", 0, ssl=tls)
    async with server:
        stream = await Tcp().connect("127.0.0.1", server.sockets[0].getsockname()[1], 5)
        try:
            yield stream
        finally:
            is_over.set()
            await stream.aclose()


async def everything(stream: httpcore2.AsyncNetworkStream) -> bytes:
    parts = []
    while part := await stream.read(1024, 5):
        parts.append(part)
    return b"".join(parts)


async def write_until_it_breaks(stream: TcpStream) -> None:
    while True:
        await stream.write(bytes(PIECE), 5)


def test_a_slow_reader_holds_one_piece_and_the_peer_the_rest(run: Run) -> None:
    async def check() -> None:
        is_stuck = asyncio.Event()

        async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.set_write_buffer_limits(high=0)
            for _ in range(ALL // PIECE):
                writer.write(bytes(PIECE))
                try:
                    # Both buffers of the kernel are full when this does not end; more time would not change it.
                    async with asyncio.timeout(0.2):
                        await writer.drain()
                except TimeoutError:
                    is_stuck.set()
                    await writer.drain()
            writer.write_eof()

        async with connected(flood) as stream:
            first = await stream.read(1, 5)
            await is_stuck.wait()
            held = await stream.read(1, 5)
            assert 0 < len(first) <= PIECE
            assert 0 < len(held) <= PIECE
            assert len(first) + len(held) + len(await everything(stream)) == ALL

    run(check())


def test_what_is_written_arrives_whole_and_the_end_is_told(run: Run) -> None:
    async def check() -> None:
        async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(ALL // 8))
            await writer.drain()
            writer.write_eof()

        async with connected(mirror) as stream:
            sent = bytes(range(256)) * (ALL // 8 // 256)
            await stream.write(b"")
            await stream.write(sent, 5)
            assert await everything(stream) == sent
            assert await stream.read(1, 5) == b""
            assert stream.get_extra_info("is_readable") is True

    run(check())


def test_silence_is_a_timeout_and_loses_nothing(run: Run) -> None:
    async def check() -> None:
        go_on = asyncio.Event()

        async def hesitate(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await go_on.wait()
            writer.write(b"at last")

        async with connected(hesitate) as stream:
            assert stream.get_extra_info("is_readable") is False
            with pytest.raises(httpcore2.ReadTimeout):
                await stream.read(1, 0.01)
            go_on.set()
            assert await stream.read(1, 5) == b"at last"

    run(check())


def test_a_peer_that_takes_nothing_is_a_timeout(run: Run) -> None:
    async def check() -> None:
        async def sleep(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            transport: asyncio.ReadTransport = reader._transport  # type: ignore[attr-defined]  # noqa: SLF001 - the only way to stop it
            transport.pause_reading()

        async with connected(sleep) as stream:
            with pytest.raises(httpcore2.WriteTimeout):
                await stream.write(bytes(ALL), 0.05)

    run(check())


def test_a_connection_that_breaks_says_so(run: Run) -> None:
    async def check() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            writer.transport.abort()

        async with connected(hang_up) as stream:
            with pytest.raises((httpcore2.ReadError, httpcore2.WriteError)):
                await write_until_it_breaks(stream)

    run(check())


def test_nobody_at_home_is_an_error_of_connecting(run: Run) -> None:
    async def check() -> None:
        async with connected(_nothing) as stream:
            port = stream.get_extra_info("server_addr")[1]
        with pytest.raises(httpcore2.ConnectError):
            await Tcp().connect("127.0.0.1", port, 5)

    run(check())


def test_a_large_answer_passes_tls(run: Run, tmp_path: Path) -> None:
    server_tls, client_tls = a_certificate(tmp_path, "good.test")

    async def check() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(5)
            writer.write(bytes(ALL // 8))
            await writer.drain()
            writer.close()

        async with connected(answer, server_tls) as clear:
            stream = await clear.start_tls(client_tls, "good.test", 5)
            assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
            await stream.write(b"hello", 5)
            assert await everything(stream) == bytes(ALL // 8)

    run(check())


def test_another_name_is_not_believed(run: Run, tmp_path: Path) -> None:
    server_tls, client_tls = a_certificate(tmp_path, "good.test")

    async def check() -> None:
        async with connected(_nothing, server_tls) as clear:
            with pytest.raises(httpcore2.ConnectError):
                await clear.start_tls(client_tls, "evil.test", 5)

    run(check())


def test_a_peer_that_never_shakes_hands_is_given_up(run: Run) -> None:
    async def check() -> None:
        async with connected(_nothing) as clear:
            with pytest.raises(httpcore2.ConnectTimeout):
                await clear.start_tls(ssl.create_default_context(), "good.test", 0.05)
            assert clear.get_extra_info("is_readable") is True

    run(check())


async def _nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return
