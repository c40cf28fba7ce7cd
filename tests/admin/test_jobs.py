"""Jobs across teams, maintenance, and what becomes of a revoked key's jobs."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.assets.records import AssetKind
from app.assets.repository import assets_of_jobs
from tests.admin.conftest import Office
from tests.assets.pictures import SAMPLES
from tests.jobs.conftest import Store


async def _status(office: Office, job_id: str) -> str:
    return str((await office.admin.get(f"/admin/v1/jobs/{job_id}")).json()["status"])


async def test_jobs_of_all_teams_are_listed_and_filtered(office: Office) -> None:
    first, second = await office.kitchen.order("one"), await office.kitchen.order("two")
    await office.admin.post(f"/admin/v1/jobs/{first}/cancel")

    async def listed(**filters: Any) -> list[str]:
        page = (await office.admin.get("/admin/v1/jobs", params=filters)).json()
        return [job["id"] for job in page["data"]]

    assert await listed() == [second, first]
    assert await listed(status="cancelled") == [first]
    assert await listed(model="openai/gpt-image-2", team_id="default") == [second, first]
    assert await listed(team_id="team_none") == []
    assert await listed(upstream="openai") == []
    assert await listed(limit=1, after=second) == [first]


async def test_jobs_of_a_team_are_searched_by_their_metadata(office: Office) -> None:
    wanted = {"model": "gpt-image-2", "prompt": "a boat", "metadata": {"order": "7"}}
    made = (await office.team.post("/v1/images/generations?async=true", json=wanted)).json()["id"]
    await office.kitchen.order("another")
    path = "/admin/v1/jobs?metadata[order]=7"
    found = (await office.admin.get(f"{path}&team_id=default")).json()
    assert [job["id"] for job in found["data"]] == [made]
    refused = await office.admin.get(path)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "team_id")


async def test_a_job_shows_whose_it_is(office: Office) -> None:
    job = (await office.admin.get(f"/admin/v1/jobs/{await office.kitchen.order()}")).json()
    assert (job["object"], job["team_id"], job["api_key_id"]) == ("image_job", "default", "key_test")
    assert job["catalog_version"] == office.parts.catalog.get().version


async def test_a_requeued_job_is_a_new_one_that_names_the_old(office: Office) -> None:
    old = await office.kitchen.order("a boat", size="1024x1024", quality="low")
    running = await office.admin.post(f"/admin/v1/jobs/{old}/requeue")
    assert (running.status_code, running.json()["error"]["job_id"]) == (400, old)
    await office.admin.post(f"/admin/v1/jobs/{old}/cancel")
    made = await office.admin.post(f"/admin/v1/jobs/{old}/requeue")
    assert made.status_code == 201
    job = made.json()
    assert (job["requeued_from"], job["status"], job["team_id"]) == (old, "queued", "default")
    jobs = office.parts.jobs
    assert (await jobs.view(job["id"], None)).job.request == (await jobs.view(old, None)).job.request
    assert await _status(office, old) == "cancelled"


async def test_a_final_job_is_not_cancelled_again(office: Office) -> None:
    job = await office.kitchen.order()
    await office.admin.post(f"/admin/v1/jobs/{job}/cancel")
    again = await office.admin.post(f"/admin/v1/jobs/{job}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "job_not_cancellable")


async def test_a_span_that_ends_before_it_begins_is_refused(office: Office) -> None:
    refused = await office.admin.get("/admin/v1/jobs?from=2026-12-01&to=2026-11-01")
    assert refused.status_code == 400
    assert (refused.json()["error"]["code"], refused.json()["error"]["param"]) == ("invalid_value", "to")


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
async def test_a_job_has_its_priority_by_the_name_that_the_client_gave(office: Office, priority: str) -> None:
    wanted = {"model": "gpt-image-2", "prompt": "a boat", "priority": priority}
    made = await office.team.post("/v1/images/generations?async=true", json=wanted)
    shown = await office.admin.get(f"/admin/v1/jobs/{made.json()['id']}")
    assert shown.json()["priority"] == priority


async def test_in_maintenance_new_jobs_are_turned_away_and_others_go_on(office: Office) -> None:
    waiting = await office.kitchen.order("before")
    dry = await office.admin.post("/admin/v1/maintenance?dry_run=true", json={"drain": True})
    assert (dry.json()["drain"], dry.json()["would"]) == (False, {"drain": True})
    began = (await office.admin.post("/admin/v1/maintenance", json={"drain": True})).json()
    assert (began["drain"], began["queued"], began["in_progress"]) == (True, 1, 0)
    wanted = {"model": "gpt-image-2", "prompt": "a boat"}
    refused = await office.team.post("/v1/images/generations?async=true", json=wanted)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert refused.headers["retry-after"] == "30"
    assert await _status(office, waiting) == "queued"
    await office.admin.post("/admin/v1/maintenance", json={"drain": False})
    taken = await office.team.post("/v1/images/generations?async=true", json=wanted)
    assert taken.status_code == 202
    assert (await office.admin.get("/admin/v1/maintenance")).json()["since"] is None


async def test_in_maintenance_a_repeated_call_still_finds_its_job(office: Office) -> None:
    job = await office.kitchen.order("a boat", key="k1")
    await office.admin.post("/admin/v1/maintenance", json={"drain": True})
    assert await office.kitchen.order("a boat", key="k1") == job


@pytest.mark.parametrize("is_to_cancel", [True, False])
async def test_a_revoked_key_takes_its_unsent_jobs_with_it_unless_told_otherwise(
    office: Office, is_to_cancel: bool
) -> None:
    made = (await office.admin.post("/admin/v1/keys", json={"team_id": "default", "name": "x"})).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    wanted = {"model": "gpt-image-2", "prompt": "a boat"}
    path = "/v1/images/generations?async=true"
    job = (await office.anonymous.post(path, json=wanted, headers=headers)).json()["id"]
    other = await office.kitchen.order()
    query = {"cancel_unsent": str(is_to_cancel).lower()}
    key = f"/admin/v1/keys/{made['id']}"
    dry = (await office.admin.delete(key, params={**query, "dry_run": "true"})).json()
    assert dry["would"] == {"revoke": True, "cancel_jobs": int(is_to_cancel)}
    assert (dry["revoked_at"], await _status(office, job)) == (None, "queued")
    revoked = (await office.admin.delete(key, params=query)).json()
    assert revoked["cancelled_jobs"] == int(is_to_cancel)
    told = (await office.audit())[-1]
    assert told["action"] == "key.revoked"
    assert told["after"].get("cancels_jobs") == ({"count": 1, "ids": [job]} if is_to_cancel else None)
    assert await _status(office, job) == ("cancelled" if is_to_cancel else "queued")
    assert await _status(office, other) == "queued"


async def test_a_requeued_edit_takes_over_its_inputs_once(office: Office) -> None:
    taken = await office.team.post(
        "/v1/images/edits?async=true",
        data={"model": "gpt-image-2", "prompt": "a boat"},
        files={"image": ("boat.png", SAMPLES["png"], "image/png")},
    )
    assert taken.status_code == 202, taken.text
    old = taken.json()["id"]
    await office.admin.post(f"/admin/v1/jobs/{old}/cancel")
    made = await office.admin.post(f"/admin/v1/jobs/{old}/requeue")
    assert made.status_code == 201, made.text
    async with office.parts.database.reading() as connection:
        (kept,) = await assets_of_jobs(connection, [old, made.json()["id"]], [AssetKind.INPUT])
    assert kept.job_id == made.json()["id"]
    again = await office.admin.post(f"/admin/v1/jobs/{old}/requeue")
    assert (again.status_code, again.json()["error"]["job_id"]) == (400, old)
    assert "deleted" in again.json()["error"]["message"]
    assert len((await office.admin.get("/admin/v1/jobs")).json()["data"]) == 2


async def test_jobs_are_found_by_their_key_and_by_when_they_were_handed_in(office: Office) -> None:
    made = (await office.admin.post("/admin/v1/keys", json={"team_id": "default", "name": "x"})).json()
    wanted = {"model": "gpt-image-2", "prompt": "a boat"}
    headers = {"authorization": f"Bearer {made['key']}"}
    mine = (
        await office.anonymous.post("/v1/images/generations?async=true", json=wanted, headers=headers)
    ).json()["id"]
    other = await office.kitchen.order()
    today = f"{datetime.now(UTC):%Y-%m-%d}"

    async def listed(**filters: str) -> list[str]:
        answer = await office.admin.get("/admin/v1/jobs", params=filters)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["data"]]

    assert await listed(api_key_id=made["id"]) == [mine]
    assert await listed(api_key_id="key_none") == []
    assert await listed(**{"from": today, "to": today}) == [other, mine]
    assert await listed(to="2020-01-31") == []
    assert await listed(**{"from": "2099-01-31T00:00:00Z"}) == []
    refused = await office.admin.get("/admin/v1/jobs", params={"from": "yesterday"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "from")


async def test_a_dry_run_cancels_and_requeues_nothing(office: Office) -> None:
    job = await office.kitchen.order(n=2, size="1024x1024", quality="low")
    dry = (await office.admin.post(f"/admin/v1/jobs/{job}/cancel?dry_run=true")).json()
    assert (dry["status"], dry["dry_run"]) == ("queued", True)
    assert dry["would"] == {"status": "cancelled", "calls_that_end_first": 0}
    early = await office.admin.post(f"/admin/v1/jobs/{job}/requeue?dry_run=true")
    assert (early.status_code, early.json()["error"]["job_id"]) == (400, job)
    await office.admin.post(f"/admin/v1/jobs/{job}/cancel")
    late = await office.admin.post(f"/admin/v1/jobs/{job}/cancel?dry_run=true")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "job_not_cancellable")
    again = await office.admin.post(f"/admin/v1/jobs/{job}/requeue?dry_run=true")
    assert again.status_code == 200
    would = {"requeued_from": job, "pictures": 2, "cost_at_most_usd": "0.012"}
    assert (again.json()["dry_run"], again.json()["would"]) == (True, would)
    jobs = (await office.admin.get("/admin/v1/jobs")).json()["data"]
    assert [item["id"] for item in jobs] == [job]
    assert [entry["action"] for entry in await office.audit()] == ["job.cancelled"]


async def test_a_key_that_may_only_look_sees_no_pictures(office: Office) -> None:
    store = Store(office.parts.database)
    await office.kitchen.order(size="1024x1024", quality="low")
    (attempt,) = await store.open(await store.claim())
    job = await store.succeed(attempt)
    for path in (f"/admin/v1/jobs/{job.id}", "/admin/v1/jobs"):
        shown = await office.admin.get(path)
        assert "&sig=" in shown.text
        looked_at = await office.reader.get(path)
        assert looked_at.status_code == 200
        assert "sig=" not in looked_at.text
    document = (await office.reader.get(f"/admin/v1/jobs/{job.id}")).json()
    assert (document["status"], document["unsigned_urls"], document["result"]["data"]) == (
        "succeeded",
        [],
        [],
    )


async def test_storage_whose_folder_is_none_makes_the_gateway_unready(office: Office) -> None:
    folder = office.parts.settings.data_dir / "files"
    folder.rename(folder.with_name("elsewhere"))
    assert (await office.anonymous.get("/readyz")).status_code == 503
    folder.write_text("no folder")
    answer = await office.anonymous.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert answer.json()["checks"]["storage"] == "storage failed: its folder is gone"
