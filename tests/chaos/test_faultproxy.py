"""The fault proxy does to a connection what each toxic says, and nothing without one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from tests.chaos.faultproxy import (
    Bandwidth,
    Blackhole,
    CutAfterRequest,
    FaultProxy,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)

_PATIENCE_S: Final = 10.0


class Echo:
    """A server that gives back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.received = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        try:
            while chunk := await reader.read(65_536):
                self.received += chunk
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def proxied_echo() -> AsyncIterator[tuple[Echo, FaultProxy]]:
    """An echo server behind a proxy."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server, FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield echo, proxy


@asynccontextmanager
async def connection(proxy: FaultProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client's connection through the proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            yield reader, writer
    finally:
        writer.transport.abort()


async def test_bytes_pass_unchanged_without_a_toxic() -> None:
    sent = bytes(range(256)) * 4096
    async with proxied_echo() as (_, proxy), connection(proxy) as (reader, writer):
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        writer.write_eof()
        assert await reader.read() == b""


@pytest.mark.parametrize(
    "toxic,at_least_s", [(Latency(0.1), 0.1), (Bandwidth(2000), 0.1), (Slicer(20, 0.01), 0.09)]
)
async def test_slowing_toxics_delay_and_lose_nothing(toxic: Toxic, at_least_s: float) -> None:
    sent = b"x" * 200
    async with proxied_echo() as (_, proxy), connection(proxy) as (reader, writer):
        began = asyncio.get_running_loop().time()
        with proxy.toxic(toxic):
            writer.write(sent)
            assert await reader.readexactly(len(sent)) == sent
        assert asyncio.get_running_loop().time() - began >= at_least_s * 0.9


async def test_slow_close_passes_the_end_on_later() -> None:
    async with proxied_echo() as (_, proxy), connection(proxy) as (reader, writer):
        with proxy.toxic(SlowClose(0.1)):
            began = asyncio.get_running_loop().time()
            writer.write_eof()
            assert await reader.read() == b""
            assert asyncio.get_running_loop().time() - began >= 0.09


async def test_timeout_swallows_the_answer_and_closes() -> None:
    async with proxied_echo() as (echo, proxy), connection(proxy) as (reader, writer):
        with proxy.toxic(Timeout(0.05)):
            writer.write(b"hello")
            assert await reader.read() == b""
        assert echo.received == b"hello"


async def test_reset_peer_resets_after_so_many_bytes() -> None:
    async with proxied_echo() as (_, proxy), connection(proxy) as (reader, writer):
        with proxy.toxic(ResetPeer(after_bytes=3)):
            writer.write(b"hello")
            # The bytes before the reset may or may not arrive: a reset throws away what was not read.
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(5)


async def test_limit_data_closes_in_order_after_so_many_bytes() -> None:
    async with proxied_echo() as (_, proxy), connection(proxy) as (reader, writer):
        with proxy.toxic(LimitData(3)):
            writer.write(b"hello")
            assert await reader.read() == b"hel"


async def test_down_resets_what_is_open_and_refuses_what_comes_until_it_is_over() -> None:
    async with proxied_echo() as (_, proxy):
        async with connection(proxy) as (reader, writer):
            writer.write(b"a")
            await reader.readexactly(1)
            with proxy.down():
                with pytest.raises(ConnectionResetError):
                    await reader.readexactly(1)
                async with connection(proxy) as (late_reader, _):
                    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                        await late_reader.readexactly(1)
        async with connection(proxy) as (reader, writer):
            writer.write(b"b")
            assert await reader.readexactly(1) == b"b"


async def test_cut_after_request_lets_the_request_take_effect_and_drops_its_answer() -> None:
    async with proxied_echo() as (echo, proxy):
        with proxy.toxic(CutAfterRequest(lambda data: b"COMMIT" in data)):
            async with connection(proxy) as (reader, writer):
                writer.write(b"BEGIN;")
                assert await reader.readexactly(6) == b"BEGIN;"
                writer.write(b"COMMIT;")
                with pytest.raises(ConnectionResetError):
                    await reader.readexactly(1)
            assert echo.received == b"BEGIN;COMMIT;"
            async with connection(proxy) as (reader, writer):
                writer.write(b"COMMIT;")
                assert await reader.readexactly(7) == b"COMMIT;"


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_blackhole_swallows_one_direction_and_keeps_the_connection(way: str) -> None:
    async with proxied_echo() as (echo, proxy), connection(proxy) as (reader, writer):
        hole = Blackhole("up" if way == "up" else "down")
        with proxy.toxic(hole):
            writer.write(b"lost")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await reader.readexactly(1)
        assert bytes(echo.received) == (b"" if way == "up" else b"lost")
        writer.write(b"found")
        assert await reader.readexactly(5) == b"found"


async def test_a_server_that_is_not_there_looks_like_a_reset() -> None:
    async with FaultProxy("127.0.0.1", 9) as proxy, connection(proxy) as (reader, _):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


async def test_a_url_keeps_its_user_its_path_and_its_query() -> None:
    async with FaultProxy.before("postgresql://me:secret@127.0.0.1:5432/db?x=1") as proxy:
        assert (
            proxy.url("postgresql://me:secret@127.0.0.1:5432/db?x=1")
            == f"postgresql://me:secret@127.0.0.1:{proxy.port}/db?x=1"
        )
