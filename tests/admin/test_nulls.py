"""A null character is in no id and in no question: it is refused before any database could choke on it."""

import re

from fastapi.routing import iter_route_contexts

from tests.admin.conftest import Office


def _routes(office: Office) -> list[tuple[str, str]]:
    return [
        (method, route.path)
        for route in iter_route_contexts(office.app.routes)
        if route.path is not None
        for method in sorted(route.methods or ())
    ]


async def test_an_id_with_a_null_is_an_unknown_one_everywhere(office: Office) -> None:
    seen = 0
    for method, template in _routes(office):
        if "{" not in template:
            continue
        seen += 1
        client = office.admin if template.startswith("/admin/") else office.team
        path = re.sub(r"\{[^}]+\}", "x%00y", template)
        body = {"prompt": "x"} | (
            {"imageUrls": ["https://203.0.113.7/x.png"]} if path.endswith("/edit") else {}
        )
        answer = await client.request(method, path, json=body if "/image/" in path else None)
        assert (method, template, answer.status_code) == (method, template, 404), answer.text
    assert seen >= 30


async def test_a_query_with_a_null_is_refused_by_name_everywhere(office: Office) -> None:
    for method, template in _routes(office):
        is_operators = template.startswith("/admin/") or template == "/metrics"
        client = office.admin if is_operators else office.team
        path = re.sub(r"\{[^}]+\}", "x", template)
        answer = await client.request(method, f"{path}?limit=1&after=x%00y")
        assert (template, answer.status_code) == (template, 400)
        if method != "HEAD":
            error = answer.json()["error"]
            assert error if path.startswith("/v1/image/") else error["param"] == "after", answer.text


async def test_a_null_opens_nothing_without_a_key(office: Office) -> None:
    for path in ("/v1/jobs/%00", "/v1/jobs?after=%00", "/admin/v1/teams/%00"):
        assert (await office.anonymous.get(path)).status_code == 401
    link = await office.anonymous.get("/v1/files/%00/content?exp=99999999999&kid=k&sig=s")
    assert (link.status_code, link.json()["error"]["code"]) == (404, "file_not_found")


async def test_a_bill_with_a_null_is_refused(office: Office) -> None:
    refused = await office.admin.post(
        "/admin/v1/reconcile",
        content=b"attempt_id,amount_usd\nx\x00y,1\n",
        headers={"content-type": "text/csv"},
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "body")
