"""What only a real connection shows: callers that go away, answers in many pieces, and stock clients."""

import asyncio
import base64
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import select

from app.db.tables.jobs import jobs
from app.db.types import now
from app.domain.failures import FailureKind
from tests.api.conftest import PNG, Gateway, serving
from tests.api.parts import API_KEY, AUTHORIZED

BODY = json.dumps({"model": "gpt-image-2", "prompt": "a lighthouse"}).encode()
LARGE = PNG + bytes(12 * 1024 * 1024)
"""Nobody decodes it on its way out."""


def request_bytes(body: bytes = BODY, path: str = "/v1/images/generations", **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: test", f"authorization: Bearer {API_KEY}"]
    lines += ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


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


async def the_job(gateway: Gateway) -> Any:
    async with gateway.database.reading() as connection:
        return (await connection.execute(select(jobs))).one()


async def cut_off_noticed(gateway: Gateway) -> Any:
    """The job's row once its caller counts as gone, which is noticed some turns of the loop later."""
    gone = select(jobs).where(jobs.c.waited_until <= now())
    while True:
        async with gateway.database.reading() as connection:
            row = (await connection.execute(gone)).first()
        if row is not None:
            return row


async def delivery_noted(gateway: Gateway) -> None:
    """Return once the job's answer counts as delivered, which is written after its last byte."""
    while (await the_job(gateway)).delivered_at is None:
        continue


async def test_a_caller_that_goes_away_leaves_its_job_running(gateway: Gateway, address: str) -> None:
    async with connected(address) as (_, writer):
        writer.write(request_bytes())
        await gateway.worker.rung()
        writer.close()
        row = await cut_off_noticed(gateway)
        assert (row.status, row.delivered_at) == ("queued", None)
        async with httpx2.AsyncClient(base_url=address, headers=AUTHORIZED) as client:
            retry = client.post(
                "/v1/images/generations",
                content=BODY,
                headers={"content-type": "application/json", "x-stainless-retry-count": "1"},
            )
            answer, _ = await asyncio.gather(retry, gateway.worker.finish())
        assert answer.status_code == 200
        assert answer.headers["x-darkroom-job-id"] == row.id
        await delivery_noted(gateway)


async def test_a_caller_that_goes_away_in_mid_answer_has_not_got_it(gateway: Gateway, address: str) -> None:
    async with connected(address) as (reader, writer):
        writer.write(request_bytes())
        await gateway.finish_next(LARGE)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        await reader.readexactly(100_000)
        writer.transport.abort()
        assert (await cut_off_noticed(gateway)).delivered_at is None


async def test_an_answer_that_was_sent_into_a_reset_has_not_arrived(gateway: Gateway, address: str) -> None:
    async with connected(address) as (_, writer):
        writer.write(request_bytes())
        await gateway.finish_next()
        await delivery_noted(gateway)
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        writer.transport.abort()
        assert (await cut_off_noticed(gateway)).delivered_at is None


async def test_a_client_that_has_its_answer_may_hang_up(gateway: Gateway, address: str) -> None:
    async with connected(address) as (reader, writer):
        writer.write(request_bytes())
        await gateway.finish_next()
        await delivery_noted(gateway)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        writer.write_eof()
        assert await reader.read() == b""
    assert (await the_job(gateway)).delivered_at is not None


async def test_a_large_answer_arrives_whole(gateway: Gateway, address: str) -> None:
    async with httpx2.AsyncClient(base_url=address, headers=AUTHORIZED, timeout=30) as client:
        call = client.post(
            "/v1/images/generations", content=BODY, headers={"content-type": "application/json"}
        )
        answer, _ = await asyncio.gather(call, gateway.finish_next(LARGE))
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert base64.b64decode(answer.json()["data"][0]["b64_json"]) == LARGE


async def test_a_key_is_refused_while_the_body_is_still_to_come(gateway: Gateway, address: str) -> None:
    async with connected(address) as (reader, writer):
        head = request_bytes(b"").replace(b"content-length: 0", b"content-length: 10000000")
        writer.write(head.replace(API_KEY.encode(), b"wrong"))
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401 ")


async def test_the_python_client_gets_a_picture(gateway: Gateway, address: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=API_KEY) as client:
        answer, _ = await asyncio.gather(
            client.images.generate(model="gpt-image-2", prompt="a lighthouse", size="1024x1024"),
            gateway.finish_next(),
        )
    assert answer.data is not None
    assert base64.b64decode(answer.data[0].b64_json or "") == PNG
    assert answer.usage is not None
    assert answer.usage.total_tokens == 210


async def test_the_blocking_client_gets_one_too(gateway: Gateway, address: str) -> None:
    def generate() -> bytes:
        with openai.OpenAI(base_url=f"{address}/v1", api_key=API_KEY) as client:
            answer = client.images.generate(model="gpt-image-2", prompt="a lighthouse")
        assert answer.data is not None
        return base64.b64decode(answer.data[0].b64_json or "")

    picture, _ = await asyncio.gather(asyncio.to_thread(generate), gateway.finish_next())
    assert picture == PNG


async def test_the_python_client_lists_models(address: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=API_KEY) as client:
        assert "gpt-image-2" in [model.id async for model in client.models.list()]
        assert (await client.models.retrieve("openai/gpt-image-2")).id == "gpt-image-2"


async def failing_call(address: str, **changed: Any) -> openai.APIStatusError:
    key = changed.pop("api_key", API_KEY)
    wanted = {"model": "gpt-image-2", "prompt": "a lighthouse", **changed}
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=key) as client:
        with pytest.raises(openai.APIStatusError) as failed:
            await client.images.generate(**wanted)
    return failed.value


@pytest.mark.parametrize(
    "changed,kind,code",
    [
        ({"api_key": "wrong"}, openai.AuthenticationError, "invalid_api_key"),
        ({"size": "1x1"}, openai.BadRequestError, "invalid_value"),
        ({"model": "nobody's"}, openai.NotFoundError, "model_not_found"),
    ],
)
async def test_the_python_client_knows_our_errors(
    address: str, changed: dict[str, Any], kind: type[openai.APIStatusError], code: str
) -> None:
    error = await failing_call(address, **changed)
    assert isinstance(error, kind)
    assert error.code == code
    assert error.request_id is not None
    assert error.request_id.startswith("req_")


async def test_the_python_client_does_not_repeat_what_may_have_been_paid(
    gateway: Gateway, address: str
) -> None:
    async def lose_track() -> None:
        await gateway.worker.rung()
        await gateway.worker.fail(FailureKind.TIMED_OUT)

    error, _ = await asyncio.gather(failing_call(address), lose_track())
    assert isinstance(error, openai.InternalServerError)
    assert error.code == "upstream_outcome_unknown"
    found, _ = await gateway.jobs.search(None, metadata={})
    assert len(found) == 1


async def test_the_python_client_that_is_sent_away_comes_back_to_its_job(gateway: Gateway) -> None:
    async with (
        serving(gateway.holding(0.05)) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=API_KEY, max_retries=9) as client,
    ):
        answer, _ = await asyncio.gather(
            client.images.generate(model="gpt-image-2", prompt="a lighthouse"), _finish_later(gateway)
        )
    assert answer.data is not None
    found, _ = await gateway.jobs.search(None, metadata={})
    assert len(found) == 1


async def _finish_later(gateway: Gateway) -> None:
    """Finish the job after its caller has been sent away once."""
    await gateway.worker.rung()
    await cut_off_noticed(gateway)
    await gateway.worker.finish()
