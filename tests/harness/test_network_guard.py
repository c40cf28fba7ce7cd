"""No test reaches beyond loopback, and what stays on this machine is left alone."""

import asyncio
import socket

import pytest

from tests.harness.network_guard import BeyondLoopback


def test_a_connection_to_another_machine_is_stopped() -> None:
    with socket.socket() as wire, pytest.raises(BeyondLoopback, match=r"192\.0\.2\.1"):
        wire.connect(("192.0.2.1", 80))


def test_a_datagram_to_another_machine_is_stopped() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as wire, pytest.raises(BeyondLoopback):
        wire.sendto(b"x", ("192.0.2.1", 53))


async def test_a_look_up_is_stopped_before_it_is_asked() -> None:
    with pytest.raises(BeyondLoopback, match=r"vendor\.example"):
        await asyncio.get_running_loop().getaddrinfo("vendor.example", 443)


async def test_a_connection_of_the_event_loop_is_stopped() -> None:
    with pytest.raises(BeyondLoopback):
        await asyncio.open_connection("198.51.100.7", 80)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_loopback_is_open(host: str) -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(host, server.sockets[0].getsockname()[1])
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
