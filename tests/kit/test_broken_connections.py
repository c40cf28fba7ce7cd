"""A connection that broke is told as such on uvloop too, whose own words nobody would take for an outage."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine
from typing import Any

import httpcore2
import pytest
from redis.exceptions import RedisError

from app.kit.egress import Guard
from app.kit.redis import arq_redis

uvloop = pytest.importorskip("uvloop")


def on_uvloop(work: Coroutine[Any, Any, None]) -> None:
    """Run on a loop of uvloop's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def test_a_redis_connection_that_breaks_before_a_command_is_an_outage_of_redis(redis_url: str) -> None:
    async def break_it() -> None:
        redis = arq_redis(redis_url)
        await redis.ping()
        (connection,) = redis.connection_pool._available_connections  # noqa: SLF001 - broken from within
        writer = connection._writer  # noqa: SLF001 - as above
        assert writer is not None
        writer.transport.abort()
        for _ in range(3):  # the turns in which the loop lets go of the socket
            await asyncio.sleep(0)
        with contextlib.suppress(RedisError):
            await connection.send_command("PING")
        await redis.aclose()

    on_uvloop(break_it())


def test_a_connection_that_is_reset_at_once_was_never_made() -> None:
    async def dial() -> None:
        async def loopback(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # a reset, not an end
            writer.transport.abort()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            stream = await Guard(loopback, (), None, ("vendor", port)).connect_tcp("vendor", port)
            with contextlib.suppress(httpcore2.ReadError):
                await stream.read(1)
            with pytest.raises(httpcore2.ConnectError):
                stream.get_extra_info("ssl_object")
            assert stream.get_extra_info("is_readable") is True
            await stream.aclose()

    on_uvloop(dial())
