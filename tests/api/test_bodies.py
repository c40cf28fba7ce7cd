"""JSON bodies: bounded while they arrive, and never read in two ways."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import APIRouter, Request

from app.api.application import create_app
from app.api.bodies import read_json_object
from tests.api.parts import AUTHORIZED, known_accounts

ECHO = APIRouter()


@ECHO.post("/echo")
async def echo(request: Request) -> object:
    """Answer with the body as it was understood."""
    return await read_json_object(request, max_bytes=1000)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=create_app([ECHO], known_accounts(), version="0"))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=AUTHORIZED) as made:
        yield made


async def sent(client: httpx2.AsyncClient, body: bytes, **headers: str) -> httpx2.Response:
    given = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return await client.post("/echo", content=body, headers=given)


async def test_an_object_is_read(client: httpx2.AsyncClient) -> None:
    answer = await sent(client, '{"a": ["ä", 1, 2.5, null, true, {"b": "\\ud83d\\ude00"}]}'.encode())
    assert answer.json() == {"a": ["ä", 1, 2.5, None, True, {"b": "😀"}]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"a"',
        b"null",
        b'{"a": 1} x',
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": {"\\udc00": 1}}',
        b'{"\\ud800": 1}',
        b'{"a": "\\u0000"}',
        b'{"a": [["\\u0000"]]}',
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a": ' + b"9" * 900 + b"}" * 0,
        b"a=1",
    ],
)
async def test_what_is_not_one_plain_object_is_refused(client: httpx2.AsyncClient, body: bytes) -> None:
    answer = await sent(client, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


async def test_the_deepest_body_that_is_taken(client: httpx2.AsyncClient) -> None:
    assert (await sent(client, b'{"a":' + b"[" * 31 + b"]" * 31 + b"}")).status_code == 200
    assert (await sent(client, b'{"a":' + b"[" * 32 + b"]" * 32 + b"}")).status_code == 400


async def test_nesting_beyond_all_measure_is_refused_as_well() -> None:
    router = APIRouter()

    @router.post("/echo")
    async def _echo(request: Request) -> object:
        return await read_json_object(request)

    transport = httpx2.ASGITransport(app=create_app([router], known_accounts(), version="0"))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=AUTHORIZED) as client:
        answer = await sent(client, b'{"a":' + b"[" * 500_000)
        assert answer.status_code == 400
        answer = await sent(client, b'{"a":' + b"9" * 5000 + b"}")
        assert answer.status_code == 400


@pytest.mark.parametrize(
    "header,value",
    [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "text/plain"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-type", "application/json; charset=latin-1"),
        ("content-encoding", "gzip"),
    ],
)
async def test_another_kind_of_body_is_refused(client: httpx2.AsyncClient, header: str, value: str) -> None:
    answer = await sent(client, b"{}", **{header: value})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize(
    "value", ["application/json", "APPLICATION/JSON", 'application/json; charset="UTF-8"']
)
async def test_json_is_known_by_its_type(client: httpx2.AsyncClient, value: str) -> None:
    assert (await sent(client, b"{}", content_type=value)).status_code == 200


async def test_a_body_that_announces_too_much_is_not_read(client: httpx2.AsyncClient) -> None:
    answer = await sent(client, b'{"a":"' + b"x" * 1000 + b'"}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_a_body_without_an_announced_length_is_counted_as_it_comes(client: httpx2.AsyncClient) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b" " * 100

    answer = await client.post("/echo", content=endless(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert taken <= 12
