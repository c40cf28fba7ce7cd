"""Every answer tells browsers to trust it with nothing, and none is made up from what a request says of its host."""

import ast
import re
from pathlib import Path

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

import app
from app.api.security_headers import HEADERS
from tests.api.conftest import PUBLIC_URL, Gateway
from tests.api.parts import AUTHORIZED

PICTURES = {"model": "gpt-image-2", "prompt": "a boat"}


def assert_guarded(answer: httpx2.Response) -> None:
    for name in HEADERS:
        assert answer.headers.get_list(name), (answer.request.method, str(answer.url), name)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("headers", [AUTHORIZED, {}], ids=["with a key", "without"])
async def test_every_answer_has_them(
    gateway: Gateway, anonymous: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    for route in iter_route_contexts(gateway.app.routes):
        path = re.sub(r"\{[^}]+\}", "x", route.path or "")
        for method in sorted(route.methods or {"GET"}):
            assert_guarded(await anonymous.request(method, path, headers=headers))
    for method, path in (("GET", "/nowhere"), ("PATCH", "/v1/jobs"), ("POST", "/healthz")):
        assert_guarded(await anonymous.request(method, path, headers=headers))


async def test_a_bug_has_them_too(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_given: object, **_named: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(gateway.accounts, "authenticate", broken)
    transport = httpx2.ASGITransport(app=gateway.app)
    async with httpx2.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=AUTHORIZED) as client:
        answer = await client.get("/v1/jobs")
    assert answer.status_code == 500
    assert_guarded(answer)


async def test_a_stream_and_a_picture_have_them(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    made = (await client.post("/v1/images/generations?async=true", json=PICTURES)).json()
    await gateway.finish_next()
    content = await client.get(f"/v1/jobs/{made['id']}/content")
    assert content.status_code == 302
    assert_guarded(content)
    events = await client.get(f"/v1/jobs/{made['id']}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert_guarded(events)
    for given in ({}, {"range": "bytes=0-3"}, {"range": "bytes=9999999-"}, {"if-none-match": "*"}):
        for method in ("GET", "HEAD"):
            answer = await client.request(method, content.headers["location"], headers=given)
            assert_guarded(answer)
            if answer.status_code < 400:
                assert answer.headers.get_list("content-security-policy") == ["default-src 'none'; sandbox"]
                assert answer.headers["content-disposition"].startswith("inline; filename=")
                assert answer.headers["cache-control"].startswith("private, max-age=")


async def test_a_host_that_a_request_makes_up_is_nowhere_in_its_answer(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    made_up = {"host": "evil.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    accepted = await client.post("/v1/images/generations?async=true", json=PICTURES, headers=made_up)
    job_id = accepted.json()["id"]
    await gateway.finish_next()
    assert "evil.example" not in accepted.text + repr(accepted.headers)
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/content", "/v1/jobs/", "/docs", "/openapi.json"):
        answer = await client.get(path, headers=made_up)
        assert "evil.example" not in answer.text + repr(answer.headers), path


def test_no_module_asks_a_request_for_its_url() -> None:
    # It is put together from the Host header, and so is what url_for and base_url give.
    asked = [
        f"{path.name}:{node.lineno}"
        for room in ("api", "admin", "console")
        for path in Path(app.__file__ or "").with_name(room).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in {"url", "base_url", "url_for"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "request"
    ]
    assert asked == []
