"""Webhooks as operators see them: endpoints, secrets shown once, deliveries listed and sent again."""

import re
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import text
from standardwebhooks import Webhook

from app.domain.requests import ImageRequest
from app.jobs.submissions import Submission
from app.webhooks.records import EventType
from tests.admin.conftest import Office
from tests.kit.scripted_server import Exchange, scripted_server

HOOK = "http://127.0.0.1:9/hook?token=1"


def _error(response: httpx2.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


async def _post(office: Office, path: str, expected: int = 200, /, **body: Any) -> dict[str, Any]:
    made = await office.admin.post(f"/admin/v1/webhooks/{path}", json=body)
    assert made.status_code == expected, made.text
    return dict(made.json())


async def _get(office: Office, path: str, **params: Any) -> dict[str, Any]:
    found = await office.admin.get(f"/admin/v1/webhooks/{path}", params=params)
    assert found.status_code == 200, found.text
    return dict(found.json())


async def _ended(office: Office, team_id: str = "default", url: str | None = HOOK) -> str:
    """A cancelled job whose end was to be told; its id."""
    submission = Submission(
        team_id=team_id,
        api_key_id="key_test",
        request=ImageRequest(model="gpt-image-2", prompt="a boat"),
        fingerprint=b"boat",
        metadata={},
        webhook_url=url,
        is_waited_for=False,
    )
    job_id = (await office.parts.jobs.submit(submission)).job.id
    await office.parts.jobs.cancel(job_id, team_id)
    return job_id


async def test_an_endpoint_wants_every_event_unless_told_otherwise(office: Office) -> None:
    made = await _post(office, "endpoints", 201, team_id="default", url=HOOK)
    assert made["events"] == [item.value for item in EventType]
    assert (made["url"], made["status"], made["disabled_reason"]) == (HOOK, "enabled", None)
    some = await _post(
        office, "endpoints", 201, team_id="default", url=HOOK, events=["job.failed", "job.failed"]
    )
    assert some["events"] == ["job.failed"]


async def test_the_secret_is_shown_with_the_first_endpoint_and_never_again(office: Office) -> None:
    first = await _post(office, "endpoints", 201, team_id="default", url=HOOK)
    second = await _post(office, "endpoints", 201, team_id="default", url=HOOK)
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", first["secret"])
    assert second["secret"] is None
    shown = await office.admin.get(f"/admin/v1/webhooks/endpoints/{first['id']}")
    listed = await office.admin.get("/admin/v1/webhooks/endpoints")
    for response in (shown, listed, await office.admin.get("/admin/v1/audit")):
        assert "whsec_" not in response.text


@pytest.mark.parametrize(
    "url, code",
    [
        ("http://169.254.169.254/latest", "invalid_url"),
        ("http://10.0.0.1/", "invalid_url"),
        ("http://[::ffff:10.0.0.1]/", "invalid_url"),
        ("https://user:pw@93.184.216.34/", "invalid_url"),
        ("https://93.184.216.34/#fragment", "invalid_url"),
        ("ftp://93.184.216.34/", "invalid_url"),
        ("https://93.184.216.34/" + "x" * 2048, "invalid_url"),
        ("hook", "invalid_url"),
        ("", "missing_required_parameter"),
    ],
)
async def test_an_endpoint_is_never_inside(office: Office, url: str, code: str) -> None:
    refused = await office.admin.post("/admin/v1/webhooks/endpoints", json={"team_id": "default", "url": url})
    assert _error(refused) == (400, code, "url")


@pytest.mark.parametrize("events", [[], ["job.started"], "job.failed", [1], [["job.failed"]]])
async def test_events_are_those_that_there_are(office: Office, events: Any) -> None:
    refused = await office.admin.post(
        "/admin/v1/webhooks/endpoints", json={"team_id": "default", "url": HOOK, "events": events}
    )
    assert _error(refused) == (400, "invalid_value", "events")


async def test_what_there_is_not_is_not_found(office: Office) -> None:
    base = "/admin/v1/webhooks"
    for method, path in (
        ("GET", "endpoints/whe_none"),
        ("DELETE", "endpoints/whe_none"),
        ("POST", "endpoints/whe_none/enable"),
        ("GET", "deliveries/whd_none"),
        ("POST", "deliveries/whd_none/resend"),
    ):
        assert _error(await office.admin.request(method, f"{base}/{path}"))[:2] == (404, "not_found")
    for path in ("endpoints", "deliveries"):
        listed = await office.admin.get(f"{base}/{path}?after=none")
        assert _error(listed) == (404, "not_found", "after")
    nobody = {"team_id": "team_none"}
    for path, body in (("endpoints", {**nobody, "url": HOOK}), ("secrets/rotate", nobody)):
        assert _error(await office.admin.post(f"{base}/{path}", json=body)) == (404, "not_found", "team_id")
    assert await office.audit() == []


async def test_a_deleted_endpoint_is_gone_and_what_waited_is_given_up(office: Office) -> None:
    made = await _post(office, "endpoints", 201, team_id="default", url=HOOK)
    job_id = await _ended(office, url=None)
    path = f"/admin/v1/webhooks/endpoints/{made['id']}"
    dry = (await office.admin.delete(f"{path}?dry_run=true")).json()
    assert (dry["dry_run"], dry["given_up"], dry["status"]) == (True, 1, "enabled")
    deleted = (await office.admin.delete(path)).json()
    assert (deleted["given_up"], deleted["status"]) == (1, "deleted")
    assert (await _get(office, "endpoints"))["data"] == []
    (delivery,) = (await _get(office, "deliveries", job_id=job_id))["data"]
    assert (delivery["status"], delivery["next_try_at"]) == ("failed", None)
    again = await office.admin.post(f"/admin/v1/webhooks/deliveries/{delivery['id']}/resend")
    assert _error(again) == (400, "invalid_value", "id")


async def test_deliveries_are_found_by_team_job_and_status_page_by_page(office: Office) -> None:
    team = (await office.admin.post("/admin/v1/teams", json={"name": "lab"})).json()["id"]
    jobs = [await _ended(office) for _ in range(3)]
    theirs = await _ended(office, team)
    first = await _get(office, "deliveries", limit=2)
    assert [item["job_id"] for item in first["data"]] == [theirs, jobs[2]]
    rest = await _get(office, "deliveries", after=first["last_id"])
    assert [item["job_id"] for item in rest["data"]] == [jobs[1], jobs[0]]
    assert rest["has_more"] is False
    assert [item["job_id"] for item in (await _get(office, "deliveries", team_id=team))["data"]] == [theirs]
    (one,) = (await _get(office, "deliveries", job_id=jobs[0]))["data"]
    assert (one["event"], one["status"], one["tries"], one["url"]) == ("job.cancelled", "pending", [], HOOK)
    assert await _get(office, f"deliveries/{one['id']}") == one
    assert (await _get(office, "deliveries", status="failed"))["data"] == []
    refused = await office.admin.get("/admin/v1/webhooks/deliveries?status=lost")
    assert _error(refused) == (400, "invalid_value", "status")


async def test_a_failed_delivery_is_seen_with_its_answer_and_sent_again_under_its_id(office: Office) -> None:
    status = 410

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(status, b"not yet" if status == 410 else b"thanks")

    async with scripted_server(script) as server:
        job_id = await _ended(office, url=server.url)
        await office.parts.deliverer.deliver_due()
        (failed,) = (await _get(office, "deliveries", job_id=job_id))["data"]
        assert (failed["status"], failed["answer"], failed["tries"][0]["status"]) == (
            "failed",
            "not yet",
            410,
        )
        status = 200
        again = await _post(office, f"deliveries/{failed['id']}/resend", 201)
        assert (again["event_id"], again["resent_from"]) == (failed["event_id"], failed["id"])
        await office.parts.deliverer.deliver_due()
        assert (await _get(office, f"deliveries/{again['id']}"))["status"] == "succeeded"
        assert {request.headers["webhook-id"] for request in server.requests} == {failed["event_id"]}
        assert len(server.requests) == 2


async def test_a_range_of_time_is_sent_again_where_the_last_delivery_failed(office: Office) -> None:
    status = 410

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(status)

    everything: dict[str, Any] = {"from": 0, "to": "2099-01-01T00:00:00Z"}
    async with scripted_server(script) as server:
        for _ in range(3):
            await _ended(office, url=server.url)
        await office.parts.deliverer.deliver_due()
        status = 200
        path = "/admin/v1/webhooks/deliveries/replay"
        dry = await office.admin.post(f"{path}?dry_run=true", json=everything)
        assert (dry.json()["resent"], dry.json()["dry_run"]) == (3, True)
        for other in ({"status": "succeeded"}, {"to": 1}):
            assert (await office.admin.post(path, json={**everything, **other})).json()["resent"] == 0
        nobody = await office.admin.post(path, json={**everything, "team_id": "team_none"})
        assert _error(nobody) == (404, "not_found", "team_id")
        backwards = await office.admin.post(path, json={"from": 2, "to": 1})
        assert _error(backwards) == (400, "invalid_value", "to")
        assert (await _post(office, "deliveries/replay", **everything))["resent"] == 3
        assert (await _post(office, "deliveries/replay", **everything))["resent"] == 0
        await office.parts.deliverer.deliver_due()
        assert (await _post(office, "deliveries/replay", **everything, status="any"))["resent"] == 3
    assert len(server.requests) == 6


@pytest.mark.parametrize("missing", ["from", "to"])
async def test_a_replay_wants_both_ends_of_its_range(office: Office, missing: str) -> None:
    body = {name: 1 for name in ("from", "to") if name != missing}
    refused = await office.admin.post("/admin/v1/webhooks/deliveries/replay", json=body)
    assert _error(refused) == (400, "missing_required_parameter", missing)


async def test_a_disabled_endpoint_is_enabled_by_hand(office: Office) -> None:
    async def gone(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(410)

    async with scripted_server(gone) as server:
        made = await _post(office, "endpoints", 201, team_id="default", url=server.url)
        await _ended(office, url=None)
        await office.parts.deliverer.deliver_due()
    (listed,) = (await _get(office, "endpoints", team_id="default"))["data"]
    assert (listed["status"], listed["disabled_reason"]) == ("disabled", "gone")
    told = (await office.audit())[-1]
    assert (told["action"], told["object"], told["actor"]["key_id"]) == (
        "webhook_endpoint.disabled",
        made["id"],
        "darkroom",
    )
    enabled = await _post(office, f"endpoints/{made['id']}/enable")
    assert (enabled["status"], enabled["failing_since"]) == ("enabled", None)


@pytest.mark.parametrize("overlap_s", [-1, 86_401, "1"])
async def test_an_overlap_of_secrets_is_at_most_a_day(office: Office, overlap_s: Any) -> None:
    refused = await office.admin.post(
        "/admin/v1/webhooks/secrets/rotate", json={"team_id": "default", "overlap_s": overlap_s}
    )
    assert _error(refused) == (400, "invalid_value", "overlap_s")


async def test_every_act_is_written_down_once_without_a_secret(office: Office) -> None:
    made = await _post(office, "endpoints", 201, team_id="default", url=HOOK)
    rotated = await _post(office, "secrets/rotate", 201, team_id="default")
    await _post(office, f"endpoints/{made['id']}/enable")
    job_id = await _ended(office)
    (delivery, _) = (await _get(office, "deliveries", job_id=job_id))["data"]
    await _post(office, f"deliveries/{delivery['id']}/resend", 201)
    await _post(office, "deliveries/replay", **{"from": 0, "to": 1})
    await office.admin.delete(f"/admin/v1/webhooks/endpoints/{made['id']}")
    audited = await office.audit()
    assert [entry["action"] for entry in audited] == [
        "webhook_endpoint.created",
        "webhook_secret.rotated",
        "webhook_endpoint.enabled",
        "webhook_delivery.resent",
        "webhook_deliveries.replayed",
        "webhook_endpoint.deleted",
    ]
    acts = {
        (method, route.path)
        for route in iter_route_contexts(office.app.routes)
        if route.path is not None and route.path.startswith("/admin/v1/webhooks")
        for method in route.methods or ()
        if method not in {"GET", "HEAD"}
    }
    assert len(acts) == len(audited)
    for secret in (made["secret"], rotated["secret"]):
        assert secret not in str(audited)


async def test_secrets_are_kept_sealed(office: Office) -> None:
    shown = (await _post(office, "secrets/rotate", 201, team_id="default"))["secret"]
    async with office.parts.database.reading() as connection:
        rows = (await connection.execute(text("SELECT * FROM webhook_secrets"))).all()
    assert len(rows) == 1
    assert shown.removeprefix("whsec_") not in str(rows)


async def test_a_request_to_be_told_inside_makes_no_job(office: Office) -> None:
    for url in ("http://169.254.169.254/", "http://10.0.0.1:8080/hook"):
        refused = await office.team.post(
            "/v1/images/generations?async=true",
            json={"model": "gpt-image-2", "prompt": "a boat", "webhook_url": url},
        )
        assert _error(refused) == (400, "invalid_url", "webhook_url")
    assert (await office.team.get("/v1/jobs")).json()["data"] == []


async def test_a_request_keeps_whom_to_tell_in_body_or_header(office: Office) -> None:
    body = {"model": "gpt-image-2", "prompt": "a boat"}
    calls: list[dict[str, Any]] = [
        {"json": {**body, "webhook_url": HOOK}},
        {"json": body, "headers": {"x-darkroom-webhook-url": HOOK}},
    ]
    for call in calls:
        made = await office.team.post("/v1/images/generations?async=true", **call)
        assert made.status_code == 202, made.text
        await office.team.post(f"/v1/jobs/{made.json()['id']}/cancel")
        (delivery,) = (await _get(office, "deliveries", job_id=made.json()["id"]))["data"]
        assert (delivery["url"], delivery["event"]) == (HOOK, "job.cancelled")


async def test_a_secret_that_signed_before_anybody_saw_it_is_shown_with_the_first_endpoint(
    office: Office,
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(200)

    async with scripted_server(script) as server:
        await _ended(office, url=server.url)
        await office.parts.deliverer.deliver_due()
        first = await _post(office, "endpoints", 201, team_id="default", url=HOOK)
        second = await _post(office, "endpoints", 201, team_id="default", url=HOOK)
        (request,) = server.requests
        Webhook(first["secret"]).verify(request.body, dict(request.headers))
    assert second["secret"] is None


async def test_a_dry_run_sends_and_rotates_nothing(office: Office) -> None:
    made = await _post(office, "endpoints", 201, team_id="default", url=HOOK)
    job_id = await _ended(office, url=None)
    (delivery,) = (await _get(office, "deliveries", job_id=job_id))["data"]
    path = f"/admin/v1/webhooks/deliveries/{delivery['id']}/resend?dry_run=true"
    dry = await office.admin.post(path)
    assert dry.status_code == 200
    assert dry.json() == {
        **delivery,
        "dry_run": True,
        "would": {"event_id": delivery["event_id"], "url": HOOK},
    }
    rotate = "/admin/v1/webhooks/secrets/rotate?dry_run=true"
    would = await office.admin.post(rotate, json={"team_id": "default", "overlap_s": 60})
    assert (would.status_code, would.json()["dry_run"]) == (200, True)
    assert would.json()["would"]["previous_expires_at"] is not None
    assert "whsec_" not in would.text
    nobody = await office.admin.post(rotate, json={"team_id": "team_none"})
    assert _error(nobody) == (404, "not_found", "team_id")
    assert len((await _get(office, "deliveries", job_id=job_id))["data"]) == 1
    assert [entry["action"] for entry in await office.audit()] == ["webhook_endpoint.created"]
    await office.admin.delete(f"/admin/v1/webhooks/endpoints/{made['id']}")
    assert _error(await office.admin.post(path))[:2] == (400, "invalid_value")
