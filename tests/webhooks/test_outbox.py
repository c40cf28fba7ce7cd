"""A job's end is in the outbox exactly when somebody wants to be told of it, exactly once, and with its own commit."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import insert, select

from app.db.engine import Database
from app.db.tables.webhook_deliveries import webhook_deliveries
from app.db.tables.webhook_endpoints import webhook_endpoints
from app.db.tables.webhook_events import webhook_events
from app.db.types import from_now
from app.db.witness import Witness
from app.jobs.integrity import check_integrity
from app.jobs.records import Job
from app.kit.ids import new_id
from app.webhooks.outbox import write_end
from tests.jobs.conftest import Store

HOOK = "https://hooks.example/done?token=1"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """Jobs on SQLite and on Postgres in turn."""
    database = Database(database_url)
    yield Store(database)
    async with database.reading() as connection:
        assert await check_integrity(connection) == []
    await database.close()


async def events(store: Store) -> list[tuple[str, str]]:
    """(job id, type) of all that is in the outbox."""
    query = select(webhook_events.c.job_id, webhook_events.c.type).order_by(webhook_events.c.id)
    async with store.database.reading() as connection:
        return [(row.job_id, row.type) for row in await connection.execute(query)]


async def receivers(store: Store) -> list[tuple[str, str | None, str]]:
    """(job id, endpoint id, URL) of all that is to be delivered."""
    table = webhook_deliveries
    query = select(table.c.job_id, table.c.endpoint_id, table.c.url).order_by(table.c.id)
    async with store.database.reading() as connection:
        return [(row.job_id, row.endpoint_id, row.url) for row in await connection.execute(query)]


async def endpoint(store: Store, team: str = "default", **values: Any) -> str:
    row = {
        "id": new_id("whe"),
        "team_id": await store.team(team),
        "url": "https://team.example/all",
        "events": ["job.succeeded", "job.failed", "job.cancelled", "job.expired"],
        "owed_from": from_now(0.0),
        **values,
    }
    async with store.database.transaction() as connection:
        await connection.execute(insert(webhook_endpoints).values(**row))
    return str(row["id"])


async def test_nobody_is_told_of_a_job_that_nobody_asks_about(store: Store) -> None:
    job_id = await store.job()
    await store.moves.cancel(job_id, None)
    assert await events(store) == []


async def test_a_success_is_told(store: Store) -> None:
    job_id = await store.job(webhook_url=HOOK)
    (attempt,) = await store.open(await store.claim())
    await store.succeed(attempt)
    assert await events(store) == [(job_id, "job.succeeded")]
    assert await receivers(store) == [(job_id, None, HOOK)]


async def test_a_failure_is_told(store: Store) -> None:
    job_id = await store.job(webhook_url=HOOK)
    job = await store.claim()
    await store.moves.give_up(job_id, job.lease_token)
    assert await events(store) == [(job_id, "job.failed")]


async def test_a_job_that_asked_nobody_by_its_deadline_has_expired(store: Store) -> None:
    job_id = await store.job(webhook_url=HOOK)
    job = await store.claim()
    await store.moves.park(job_id, job.lease_token, delay_s=700.0)
    await store.age(job_id, 601.0)
    await store.moves.end_overdue()
    assert await events(store) == [(job_id, "job.expired")]


async def test_a_job_beyond_its_time_limit_was_cancelled(store: Store) -> None:
    job_id = await store.job(webhook_url=HOOK, cancel_after_s=60.0)
    await store.age(job_id, 61.0)
    await store.moves.call_off()
    assert await events(store) == [(job_id, "job.cancelled")]


async def test_a_cancellation_is_told_once_however_often_it_is_asked_for(store: Store) -> None:
    job_id = await store.job(webhook_url=HOOK)
    for _ in range(3):
        await store.moves.cancel(job_id, None)
    assert await events(store) == [(job_id, "job.cancelled")]
    assert len(await receivers(store)) == 1


async def test_a_missed_deadline_is_told(store: Store) -> None:
    job_id = await store.job(webhook_url=HOOK)
    await store.age(job_id, 601)
    assert await store.moves.end_overdue() == [job_id]
    assert await events(store) == [(job_id, "job.expired")]


async def test_pictures_that_come_late_are_no_second_end(store: Store) -> None:
    job_id = await store.job(webhook_url=HOOK)
    (attempt,) = await store.open(await store.claim())
    await store.moves.cancel(job_id, None)
    await store.succeed(attempt)
    assert await events(store) == [(job_id, "job.cancelled")]


async def test_a_team_is_told_at_each_endpoint_that_wants_this_event(store: Store) -> None:
    wants_all = await endpoint(store)
    await endpoint(store, events=["job.failed"])
    await endpoint(store, "strangers")
    await endpoint(store, disabled_at=from_now(0.0), disabled_reason="gone")
    await endpoint(store, deleted_at=from_now(0.0))
    job_id = await store.job(webhook_url=HOOK)
    await store.moves.cancel(job_id, None)
    assert await events(store) == [(job_id, "job.cancelled")]
    assert sorted(await receivers(store), key=str) == sorted(
        [(job_id, None, HOOK), (job_id, wants_all, "https://team.example/all")], key=str
    )


async def test_what_is_rolled_back_was_never_told(store: Store) -> None:
    class Torn(Exception):
        pass

    async def tear(*_: object) -> None:
        raise Torn

    witness: Witness[Job] = tear
    job_id = await store.job(webhook_url=HOOK)
    with pytest.raises(Torn):
        await store.moves.cancel(job_id, None, witness=witness)
    assert await events(store) == []
    assert not (await store.look(job_id)).status.is_final


async def test_an_end_that_is_written_is_not_written_again(store: Store) -> None:
    job_id = await store.job(webhook_url=HOOK)
    await store.moves.cancel(job_id, None)
    job = await store.look(job_id)
    async with store.database.transaction() as connection:
        await write_end(connection, job_id=job_id, team_id=job.team_id, status="cancelled", webhook_url=HOOK)
    assert len(await events(store)) == len(await receivers(store)) == 1
