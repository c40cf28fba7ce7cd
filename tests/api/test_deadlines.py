"""Clients that dawdle are cut off; answers that take long are not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request

from app.api.deadlines import DeadlineH11
from tests.api.conftest import serving


class Hurried(DeadlineH11):
    """The protocol with deadlines that a test can wait for."""

    headers_within_s = 0.2
    body_within_s = 0.2
    slowest_bytes_per_s = 1_000_000.0


@pytest.fixture
async def address() -> AsyncIterator[str]:
    router = APIRouter()

    @router.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    @router.post("/unread")
    async def unread(_request: Request) -> str:
        return "answered"

    @router.get("/slow")
    async def slow(_request: Request) -> str:
        await asyncio.sleep(0.6)  # longer than every deadline for a client
        return "late"

    app = FastAPI()
    app.include_router(router)
    async with serving(app, Hurried) as at:
        yield at


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection, closed at the end."""
    url = httpx2.URL(address)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def is_cut_off(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of the connection; an answer on it would be an error."""
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /slow HT", b"GET /slow HTTP/1.1\r\nhost: x\r\n"],
    ids=["silent", "request line", "headers"],
)
async def test_headers_must_come_in_time(address: str, sent: bytes) -> None:
    async with connected(address) as (reader, writer):
        writer.write(sent)
        assert await is_cut_off(reader)


@pytest.mark.parametrize("framing", [b"content-length: 1000", b"content-length: 3"])
async def test_a_body_must_come_in_time(address: str, framing: bytes) -> None:
    async with connected(address) as (reader, writer):
        writer.write(b"POST /body HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\nab")
        assert await is_cut_off(reader)


async def test_drops_of_a_header_do_not_buy_time(address: str) -> None:
    async with connected(address) as (reader, writer):
        ended = asyncio.ensure_future(is_cut_off(reader))
        writer.write(b"GET /slow HTTP/1.1\r\n")
        while not ended.done():
            writer.write(b"x")
            await asyncio.wait([ended], timeout=0.05)
        assert ended.result()


async def test_a_large_body_has_longer(address: str) -> None:
    async with connected(address) as (reader, writer):
        size = 1_000_000
        writer.write(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        ended = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        for _ in range(4):
            writer.write(bytes(size // 4))
            await asyncio.wait([ended], timeout=0.1)
        assert (await ended).startswith(b"HTTP/1.1 200 ")


async def test_an_answer_may_take_long(address: str) -> None:
    async with httpx2.AsyncClient(base_url=address) as client:
        assert (await client.get("/slow")).json() == "late"
        # The connection is kept, and its next request has deadlines of its own.
        assert (await client.post("/body", content=b"abc")).json() == 3
        assert (await client.get("/slow")).json() == "late"


async def test_a_following_request_must_come_in_time_too(address: str) -> None:
    async with connected(address) as (reader, writer):
        writer.write(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
        await reader.readuntil(b"\r\n\r\n3")
        writer.write(b"GET /slow HT")
        assert await is_cut_off(reader)


async def test_a_body_that_follows_its_answer_leaves_the_connection_usable(address: str) -> None:
    async with connected(address) as (reader, writer):
        writer.write(b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n")
        await reader.readuntil(b'"answered"')
        writer.write(b"abc")
        writer.write(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab")
        await reader.readuntil(b"\r\n\r\n2")
