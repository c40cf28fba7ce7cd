"""No route is open by accident."""

import re

import httpx2
from fastapi.routing import iter_route_contexts

from app.api.authentication import is_public
from tests.api.conftest import Gateway

PUBLIC_BY_CONTRACT = {"/healthz", "/readyz", "/docs", "/openapi.json"} | {
    f"/docs/{file}" for file in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js")
}


async def test_every_route_is_public_by_contract_or_behind_a_key(
    gateway: Gateway, anonymous: httpx2.AsyncClient
) -> None:
    walked = 0
    for route in iter_route_contexts(gateway.app.routes):
        assert route.path is not None
        path = re.sub(r"\{[^}]+\}", "x", route.path)
        for method in sorted(route.methods or {"GET"}):
            walked += 1
            answer = await anonymous.request(method, path)
            if route.path in PUBLIC_BY_CONTRACT:
                assert answer.status_code == 200, (method, path)
            else:
                assert answer.status_code == 401, (method, path)
                assert answer.headers["content-type"] == "application/json"
    assert walked >= 20


async def test_only_a_signed_link_opens_what_wants_a_key(gateway: Gateway) -> None:
    opened = set()
    for route in iter_route_contexts(gateway.app.routes):
        path = re.sub(r"\{[^}]+\}", "x", route.path or "")
        for method in route.methods or {"GET"}:
            scope = {"method": method, "path": path, "query_string": b"exp=1&kid=k&sig=s"}
            if is_public(scope) and route.path not in PUBLIC_BY_CONTRACT:
                opened.add((method, route.path))
    assert opened == {("GET", "/v1/files/{file_id}/content"), ("HEAD", "/v1/files/{file_id}/content")}
