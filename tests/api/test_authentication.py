"""Who comes in: decided by path and headers, before a byte of the body is read."""

from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Request

from app.api.application import create_app
from app.api.authentication import caller_of, is_public
from tests.api.parts import ADMIN_KEY, API_KEY, known_accounts

ECHO = APIRouter()


@ECHO.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "DELETE"])
async def echo(request: Request) -> dict[str, Any]:
    """Answer with who is asking, where somebody is."""
    state = request.scope["state"]
    return {"team": caller_of(request).team_id if "caller" in state else None}


def scope(path: str, query: str = "", method: str = "GET", **headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }


async def status_of(given: dict[str, Any], *, are_metrics_public: bool = False) -> int:
    """The status of an answer that is made without asking for the body."""
    app = create_app([ECHO], known_accounts(), version="0", are_metrics_public=are_metrics_public)
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(given, receive, send)
    return statuses[0]


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/jobs/job_1", "/v1/nowhere", "/", "/docs/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_nothing_is_served_without_a_key(path: str, method: str) -> None:
    assert await status_of(scope(path, method=method)) == 401


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/readyz",
        "/docs",
        "/docs/swagger-ui.css",
        "/openapi.json",
        "/console",
        "/console/app.js",
    ],
)
def test_what_the_contract_opens_is_open(path: str) -> None:
    assert is_public(scope(path))


@pytest.mark.parametrize(
    "path",
    [
        "/healthz/",
        "/console.js",
        "/docs/",
        "/docs/x",
        "/docs/../v1/jobs",
        "/openapi.json/x",
        "/metrics",
        "/v1/files/f/content",
        "//docs",
    ],
)
def test_what_only_resembles_it_is_not(path: str) -> None:
    assert not is_public(scope(path))


def test_a_signed_link_is_left_to_its_endpoint_to_judge() -> None:
    signed = "exp=1&kid=a&sig=b"
    assert is_public(scope("/v1/files/file_1/content", signed))
    assert is_public(scope("/v1/files/file_1/content", signed, "HEAD"))
    assert not is_public(scope("/v1/files/file_1/content", signed, "DELETE"))
    assert not is_public(scope("/v1/files/file_1/content", "exp=1&kid=a"))
    assert not is_public(scope("/v1/files/file_1/content", "exp=&kid=&sig="))
    assert not is_public(scope("/v1/files/file_1", signed))
    assert not is_public(scope("/v1/files/a/b/content", signed))


@pytest.mark.parametrize(
    "given",
    [
        "",
        API_KEY,
        f"Basic {API_KEY}",
        "Bearer",
        "Bearer ",
        f"Bearer {API_KEY} {API_KEY}",
        "Bearer wrong",
        "Bearer " + "x" * 9000,
    ],
)
async def test_only_a_bearer_token_is_a_key(given: str) -> None:
    assert await status_of(scope("/v1/jobs", authorization=given)) == 401


@pytest.mark.parametrize("given", [f"Bearer {API_KEY}", f"bearer {API_KEY}", f"BEARER  {API_KEY}"])
async def test_the_scheme_is_read_in_any_case(given: str) -> None:
    assert await status_of(scope("/v1/jobs", authorization=given)) == 200


@pytest.mark.parametrize(
    "path,key,status",
    [
        ("/v1/jobs", API_KEY, 200),
        ("/v1/jobs", ADMIN_KEY, 401),
        ("/admin/v1/teams", API_KEY, 403),
        ("/admin/v1/teams", ADMIN_KEY, 200),
        ("/metrics", API_KEY, 403),
        ("/metrics", ADMIN_KEY, 200),
        ("/metrics", "", 401),
    ],
)
async def test_each_kind_of_key_opens_its_own_part(path: str, key: str, status: int) -> None:
    assert await status_of(scope(path, authorization=f"Bearer {key}")) == status


async def test_metrics_can_be_public() -> None:
    assert await status_of(scope("/metrics"), are_metrics_public=True) == 200
    assert await status_of(scope("/v1/jobs"), are_metrics_public=True) == 401


async def test_a_failed_key_is_never_repeated() -> None:
    transport = httpx2.ASGITransport(app=create_app([ECHO], known_accounts(), version="0"))
    wrong = "dk_0123456789_this-is-almost-a-key-of-somebody"
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/v1/jobs", headers={"authorization": f"Bearer {wrong}"})
    assert answer.status_code == 401
    assert wrong not in answer.text + repr(answer.headers)


async def test_websockets_are_closed() -> None:
    app = create_app([ECHO], known_accounts(), version="0")
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({**scope("/v1/jobs"), "type": "websocket"}, receive, send)
    assert sent == ["websocket.close"]
