"""What holds for every endpoint of the operators, by enumeration: who may call it, and what the audit log keeps."""

import re
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import text

from tests.admin.conftest import Office

SAFE = {"GET", "HEAD"}
CHECK = "/admin/v1/config/check"


def _routes(office: Office) -> list[tuple[str, str]]:
    """Every method and path of the operators' API, with made-up ids."""
    found = [
        (method, re.sub(r"\{[^}]+\}", "nobody", route.path))
        for route in iter_route_contexts(office.app.routes)
        if route.path is not None and route.path.startswith("/admin/")
        for method in sorted(route.methods or ())
    ]
    assert len(found) >= 20
    return found


def _code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_nobody_comes_in_without_a_key(office: Office) -> None:
    for method, path in _routes(office):
        answer = await office.anonymous.request(method, path)
        assert (path, *_code(answer)) == (path, 401, "invalid_api_key")


async def test_no_team_comes_in(office: Office) -> None:
    for method, path in _routes(office):
        answer = await office.team.request(method, path)
        assert (path, *_code(answer)) == (path, 403, "admin_key_required")


async def test_a_key_that_may_only_look_changes_nothing(office: Office) -> None:
    for method, path in _routes(office):
        answer = await office.reader.request(method, path)
        if method in SAFE:
            assert (path, answer.status_code) in {(path, 200), (path, 404)}
        elif path != CHECK:
            assert (path, *_code(answer)) == (path, 403, "admin_key_required")
    assert [entry["action"] for entry in await office.audit()] == ["config.checked"]


async def test_a_key_that_may_only_look_may_ask_what_would_happen_and_no_more(office: Office) -> None:
    for method, path in _routes(office):
        if method in SAFE:
            continue
        for asked in ("dry_run=true", "dry_run=1&dry_run=true", "dry_run=false&dry_run=true"):
            answer = await office.reader.request(method, f"{path}?{asked}", json={})
            if answer.status_code < 300:
                assert answer.json()["dry_run"] is True, path
            else:
                assert answer.status_code in {400, 404}, path
        for asked in ("dry_run=false", "dry_run=true&dry_run=false", "dry_run="):
            answer = await office.reader.request(method, f"{path}?{asked}", json={})
            assert answer.status_code in {400, 403}, path
    assert await office.audit() == []
    disabled = await office.reader.post("/admin/v1/upstreams/openai/disable?dry_run=true")
    assert disabled.json()["would"]["switch"] == "off"
    checked = await office.reader.post(CHECK)
    assert checked.json()["valid"] is True


async def test_nobody_acts_by_a_typo(office: Office) -> None:
    for method, path in _routes(office):
        if method in SAFE:
            continue
        answer = await office.admin.request(method, f"{path}?dryrun=true", json={})
        error = answer.json()["error"]
        assert (path, answer.status_code, error["code"], error["param"]) == (
            path,
            400,
            "unknown_parameter",
            "dryrun",
        )
    assert await office.audit() == []


async def test_what_takes_no_body_refuses_one(office: Office) -> None:
    job = await office.kitchen.order()
    for path in (f"jobs/{job}/cancel", "config/reload", "keys/key_1/rotate"):
        answer = await office.admin.post(f"/admin/v1/{path}", json={"dry_run": True})
        error = answer.json()["error"]
        assert (path, answer.status_code, error["code"], error["param"]) == (
            path,
            400,
            "unknown_parameter",
            "dry_run",
        )
    garbage = await office.admin.post(f"/admin/v1/jobs/{job}/cancel", content=b"drop it")
    assert garbage.status_code == 400
    assert (await office.admin.get(f"/admin/v1/jobs/{job}")).json()["status"] == "queued"


async def test_the_root_of_the_operators_api_is_theirs(office: Office) -> None:
    assert _code(await office.admin.get("/admin/v1")) == (404, "not_found")
    assert _code(await office.team.get("/admin/v1")) == (403, "admin_key_required")


@pytest.mark.parametrize(
    "path",
    ["teams", "keys", "jobs", "upstreams", "audit", "webhooks/endpoints", "webhooks/deliveries"],
)
async def test_a_list_names_the_place_to_go_on_after(office: Office, path: str) -> None:
    refused = await office.admin.get(f"/admin/v1/{path}", params={"after": "nothing_1"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "after")
    assert (await office.admin.get(f"/admin/v1/{path}?after=")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "teams", "teams/default", "keys", "jobs", "upstreams", "audit", "webhooks/endpoints", "webhooks/deliveries",
        "spend", "config", "maintenance",
    ],
)  # fmt: skip
async def test_a_look_refuses_what_it_does_not_take(office: Office, path: str) -> None:
    refused = await office.reader.get(f"/admin/v1/{path}", params={"team": "default"})
    assert (_code(refused), refused.json()["error"]["param"]) == ((400, "unknown_parameter"), "team")


async def test_every_act_is_written_down_once_and_no_look_is(office: Office) -> None:
    """The acts of this test are compared with the routes that there are, so that a new one is not forgotten."""
    admin, parts = office.admin, office.parts
    done: list[tuple[str, str]] = []

    async def act(method: str, path: str, template: str, *, status: int = 200, **sent: Any) -> dict[str, Any]:
        before = len(await office.audit())
        answer = await admin.request(method, f"/admin/v1/{path}", **sent)
        assert answer.status_code == status, answer.text
        entries = (await office.audit())[before:]
        assert len(entries) == 1, (method, path, entries)
        assert entries[0]["actor"]["key_name"] == "bootstrap_admin"
        assert entries[0]["request_id"] == answer.headers["x-request-id"]
        done.append((method, f"/admin/v1/{template}"))
        return dict(answer.json())

    team = await act("POST", "teams", "teams", status=201, json={"name": "lab"})
    await act("PATCH", f"teams/{team['id']}", "teams/{team_id}", json={"limits": {"max_jobs": 1}})
    key = await act("POST", "keys", "keys", status=201, json={"team_id": team["id"], "name": "notebook"})
    await act("PATCH", f"keys/{key['id']}", "keys/{key_id}", json={"name": "desk"})
    newer = await act("POST", f"keys/{key['id']}/rotate", "keys/{key_id}/rotate", status=201, json={})
    await act("DELETE", f"keys/{key['id']}", "keys/{key_id}")
    first, second = await office.kitchen.order("a canary of a prompt"), await office.kitchen.order("two")
    await act("POST", f"jobs/{first}/cancel", "jobs/{job_id}/cancel")
    await act("POST", f"jobs/{first}/requeue", "jobs/{job_id}/requeue", status=201)
    for verb in ("disable", "drain", "enable", "reset"):
        await act("POST", f"upstreams/openai/{verb}", f"upstreams/{{name}}/{verb}")
    await act("POST", "config/check", "config/check", content=b"version: 2")
    await act("POST", "config/reload", "config/reload")
    await act("POST", "maintenance", "maintenance", json={"drain": True})
    audited = await office.audit()
    for path in ("teams", "keys", f"jobs/{second}", "upstreams", "config", "maintenance", "audit"):
        assert (await admin.get(f"/admin/v1/{path}")).status_code == 200
    assert await office.audit() == audited
    written = str(audited)
    secrets = (key["key"], newer["key"], "canary-of-a-vendor-key", "canary of a prompt")
    assert not [secret for secret in secrets if secret in written]
    known = {
        (method, route.path)
        for route in iter_route_contexts(office.app.routes)
        if route.path is not None and route.path.startswith("/admin/")
        for method in route.methods or ()
        if method not in SAFE
    }
    mine = {item for item in known if item[1].split("/")[3] in _OWN}
    assert mine == set(done)
    assert parts.catalog.get().version == audited[-2]["after"]["version"]


# Spend, budgets and webhooks prove the same of theirs beside their own tests.
_OWN = {"teams", "keys", "jobs", "upstreams", "config", "maintenance", "audit"}


async def test_a_refused_act_leaves_no_entry(office: Office) -> None:
    assert (await office.admin.post("/admin/v1/teams", json={"name": ""})).status_code == 400
    assert (await office.admin.delete("/admin/v1/keys/key_none")).status_code == 404
    assert (await office.admin.post("/admin/v1/jobs/job_none/cancel")).status_code == 404
    assert (await office.admin.post("/admin/v1/upstreams/none/disable")).status_code == 404
    assert await office.audit() == []


async def test_the_database_refuses_to_change_an_entry(office: Office) -> None:
    await office.admin.post("/admin/v1/teams", json={"name": "lab"})
    for statement in ("UPDATE audit_entries SET action = 'x'", "DELETE FROM audit_entries"):
        with pytest.raises(Exception, match="an audit entry never changes"):
            async with office.parts.database.transaction() as connection:
                await connection.execute(text(statement))


async def test_entries_are_found_by_what_was_acted_on(office: Office) -> None:
    made = (await office.admin.post("/admin/v1/teams", json={"name": "lab"})).json()
    await office.admin.post("/admin/v1/teams", json={"name": "studio"})
    await office.admin.patch(f"/admin/v1/teams/{made['id']}", json={"name": "laboratory"})
    page = (await office.admin.get("/admin/v1/audit", params={"object": made["id"], "limit": 1})).json()
    assert [entry["action"] for entry in page["data"]] == ["team.changed"]
    assert (page["data"][0]["before"]["name"], page["data"][0]["after"]["name"]) == ("lab", "laboratory")
    rest = (
        await office.admin.get("/admin/v1/audit", params={"object": made["id"], "after": page["last_id"]})
    ).json()
    assert [entry["action"] for entry in rest["data"]] == ["team.created"]
