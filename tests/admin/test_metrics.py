"""What `/metrics` tells, to whom, and what it does while something is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import update

from app.accounts import service as accounts
from app.assembly import assemble
from app.db.migrate import upgrade
from app.db.tables.jobs import jobs
from app.db.types import from_now
from app.domain.failures import FailureKind, UpstreamFailure
from app.jobs import survey
from app.main import build_admin_app, build_app
from app.worker import build_app as build_worker_app
from tests.admin.conftest import BASE_URL, Office, offline_catalog
from tests.harness.servers import PostgresServer
from tests.jobs.conftest import Store
from tests.jobs.shop import submission
from tests.kitchen import ADMIN_KEY, API_KEY, open_kitchen, write_settings
from tests.scrape import AS_ADMIN, scrape

GENERATIONS = "/v1/images/generations"
REQUEST = {"model": "gpt-image-2", "prompt": "a boat", "size": "1024x1024", "quality": "low"}


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from one scrape to the next."""
    monkeypatch.setattr(survey, "FRESH_S", 0.0)


@asynccontextmanager
async def asking(app: object) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app)  # type: ignore[arg-type] # an ASGI application
    async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        yield client


async def test_it_wants_an_admin_key(office: Office) -> None:
    assert (await office.anonymous.get("/metrics")).status_code == 401
    refused = await office.team.get("/metrics")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_key_required")
    assert (await office.reader.get("/metrics")).status_code == 200
    assert (await scrape(office.admin)).value("darkroom_database_up") == 1


async def test_the_document_names_it(office: Office) -> None:
    document = (await office.anonymous.get("/openapi.json")).json()
    operation = document["paths"]["/metrics"]["get"]
    assert operation["security"]
    assert {"200", "401", "403"} <= operation["responses"].keys()
    assert list(operation["responses"]["200"]["content"]) == ["text/plain"]


async def test_it_can_be_public(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str) -> None:
    settings = write_settings(
        monkeypatch, tmp_path, offline_catalog(), database_url=sqlite_url, METRICS_PUBLIC="true"
    )
    async with (
        open_kitchen(settings, is_working=False) as kitchen,
        asking(build_app(kitchen.parts)) as client,
    ):
        assert (await client.get("/metrics")).status_code == 200
        assert "security" not in (await client.get("/openapi.json")).json()["paths"]["/metrics"]["get"]


async def test_operators_with_a_listener_of_their_own_see_it_there_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> None:
    settings = write_settings(
        monkeypatch, tmp_path, offline_catalog(), database_url=sqlite_url, ADMIN_LISTEN="127.0.0.1:9999"
    )
    async with (
        open_kitchen(settings, is_working=False) as kitchen,
        asking(build_app(kitchen.parts)) as public,
        asking(build_admin_app(kitchen.parts)) as operators,
    ):
        assert (await public.get("/metrics", headers=AS_ADMIN)).status_code == 404
        told = await scrape(operators)
    # Both listeners are of one process.
    assert told.value("darkroom_http_request_duration_seconds_count", route="unmatched", status="404") == 1


async def test_a_worker_tells_of_itself_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> None:
    settings = write_settings(monkeypatch, tmp_path, offline_catalog(), database_url=sqlite_url)
    async with assemble(settings, is_api=False) as parts, asking(build_worker_app(parts)) as client:
        await parts.accounts.bootstrap(API_KEY, ADMIN_KEY)
        told = await scrape(client)
        assert told.value("darkroom_database_up") == 1
        assert told.value("darkroom_jobs_open") is None
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/metrics")).status_code == 401
        team = {"authorization": f"Bearer {API_KEY}"}
        assert (await client.get("/v1/models", headers=team)).status_code == 404


async def test_requests_are_counted_by_the_template_of_their_route(office: Office) -> None:
    await office.team.get("/v1/jobs/job_canary")
    await office.team.get("/v1/canary")
    await office.anonymous.get("/v1/jobs/job_canary")
    await office.team.request("CANARY", "/v1/jobs")
    told = await scrape(office.admin)
    count = "darkroom_http_request_duration_seconds_count"
    assert told.value(count, method="GET", route="/v1/jobs/{job_id}", status="404") == 1
    assert told.value(count, method="GET", route="unmatched", status="404") == 1
    assert told.value(count, method="GET", route="unmatched", status="401") == 1
    assert told.value(count, method="other", status="405") == 1
    assert told.value("darkroom_http_requests_in_flight") == 1  # the scrape itself
    assert "canary" not in told.text.lower()


async def test_what_becomes_no_job_is_counted_by_its_reason(office: Office) -> None:
    async def limited(**limits: object) -> dict[str, str]:
        made = await office.admin.post(
            "/admin/v1/keys", json={"team_id": "default", "name": "limited", "limits": limits}
        )
        return {"authorization": f"Bearer {made.json()['key']}"}

    poor = await limited(budget_day_usd="0.0001")
    slow = await limited(requests_per_minute=1)
    few = await limited(max_jobs=1)
    blind = await limited(images_per_minute=1)
    for key, body in (
        (poor, REQUEST),
        (slow, REQUEST),
        (slow, REQUEST),
        (few, REQUEST),
        (few, REQUEST),
        (blind, REQUEST),
        (blind, REQUEST),
        (slow, {**REQUEST, "model": "canary-of-a-model"}),
    ):
        await office.team.post(f"{GENERATIONS}?async=true", json=body, headers=key)
    told = await scrape(office.admin)
    refused = {
        labels["reason"]: told.value("darkroom_jobs_refused_total", **labels)
        for name, labels in told.labels()
        if name == "darkroom_jobs_refused"
    }
    assert refused == {
        "insufficient_quota": 1,
        "requests_per_minute": 1,
        "max_jobs": 1,
        "images_per_minute": 1,
        "model_not_found": 1,
    }
    assert told.value("darkroom_jobs_admitted_total", model="gpt-image-2", operation="image.generation") == 3
    assert "canary" not in told.text


async def test_a_repetition_is_counted_by_what_told_it(office: Office) -> None:
    keyed = {"idempotency-key": "canary-of-a-key"}
    for _ in range(3):
        await office.team.post(f"{GENERATIONS}?async=true", json=REQUEST, headers=keyed)
    service = office.parts.jobs
    call = submission("default", model="gpt-image-2")
    await service.cut_off((await service.submit(call)).job.id)
    assert (await service.submit(replace(call, sdk_retry=1))).is_replay
    told = await scrape(office.admin)
    assert told.value("darkroom_jobs_attached_total", by="idempotency_key") == 2
    assert told.value("darkroom_jobs_attached_total", by="sdk_retry") == 1
    assert told.value("darkroom_jobs_admitted_total") == 2
    assert "canary" not in told.text


async def test_the_queue_is_told_for_all_processes_together(office: Office) -> None:
    first = await office.kitchen.order("one")
    await office.kitchen.order("two")
    parts = office.parts
    async with parts.database.transaction() as connection:
        aged = update(jobs).where(jobs.c.id == first).values(created_at=from_now(-90.0))
        await connection.execute(aged)
    told = await scrape(office.admin)
    assert told.value("darkroom_jobs_open", status="queued") == 2
    assert 90 <= (told.value("darkroom_oldest_queued_job_seconds") or 0) < 150
    await Store(parts.database).claim()
    told = await scrape(office.admin)
    assert told.value("darkroom_jobs_open", status="queued") == 1
    assert told.value("darkroom_jobs_open", status="in_progress") == 1
    assert (told.value("darkroom_oldest_queued_job_seconds") or 0) < 60


async def test_an_upstream_is_told_as_it_stands(office: Office) -> None:
    async def of_openai(name: str, **labels: str) -> float | None:
        return (await scrape(office.admin)).value(f"darkroom_upstream_{name}", upstream="openai", **labels)

    assert await of_openai("available") == 1
    assert await of_openai("max_concurrency") == 50
    assert await of_openai("breaker", state="closed") == 1
    assert await of_openai("away_seconds") is None
    await office.admin.post("/admin/v1/upstreams/openai/drain")
    assert await of_openai("switch", switch="draining") == 1
    assert await of_openai("switch", switch="on") == 0
    assert await of_openai("available") == 0
    await office.admin.post("/admin/v1/upstreams/openai/enable")
    for _ in range(5):
        failure = UpstreamFailure(FailureKind.DOWN, "away")
        await office.parts.routes.failed("openai", "gpt-image-2", failure)
    assert await of_openai("breaker", state="open") == 1
    assert await of_openai("available") == 0
    assert 20 < (await of_openai("away_seconds", reason="down") or 0) <= 30


async def test_looks_are_shared_by_those_who_ask_within_seconds(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "FRESH_S", 60.0)
    assert (await scrape(office.admin)).value("darkroom_jobs_open", status="queued") == 0
    await office.kitchen.order("one")
    assert (await scrape(office.admin)).value("darkroom_jobs_open", status="queued") == 0


async def test_a_process_tells_of_itself(office: Office) -> None:
    told = await scrape(office.admin)
    while not told.value("darkroom_event_loop_lag_seconds_count"):  # it is measured twice a second
        told = await scrape(office.admin)
    assert told.value("darkroom_build_info") == 1
    assert (told.value("process_resident_memory_bytes") or 0) > 1_000_000
    assert (told.value("darkroom_storage_free_bytes") or 0) > 0
    assert told.value("darkroom_redis_up") is None


async def test_a_redis_that_is_away_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    told: list[float | None] = []
    for address in (redis_url, "redis://127.0.0.1:9"):
        settings = write_settings(
            monkeypatch, tmp_path, offline_catalog(), database_url=postgres_url, REDIS_URL=address
        )
        async with assemble(settings) as parts, asking(build_app(parts)) as client:
            await parts.accounts.bootstrap(API_KEY, ADMIN_KEY)
            told.append((await scrape(client)).value("darkroom_redis_up"))
    assert told == [1, 0]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_database_that_is_away_is_told_within_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    monkeypatch.setattr(accounts, "CACHED_S", 0.0)
    with PostgresServer() as server:
        url = await asyncio.to_thread(server.create_database)
        await asyncio.to_thread(upgrade, url)
        settings = write_settings(monkeypatch, tmp_path, offline_catalog(), database_url=url)
        async with assemble(settings) as parts, asking(build_app(parts)) as client:
            await parts.accounts.bootstrap(API_KEY, ADMIN_KEY)
            assert (await scrape(client)).value("darkroom_database_up") == 1
            (server.kill if fault == "killed" else server.pause)()
            try:
                for _ in range(2):
                    began = time.monotonic()
                    told = await scrape(client)
                    assert time.monotonic() - began < 8
                    assert told.value("darkroom_database_up") == 0
                    assert told.value("darkroom_jobs_open") is None
                # Only what has to be seen in an outage is seen in one, and only by those who were known before.
                unknown = {"authorization": f"Bearer {'x' * 40}"}
                assert (await client.get("/metrics", headers=unknown)).status_code == 503
            finally:
                if fault == "frozen":
                    server.resume()
