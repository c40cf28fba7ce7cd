"""Each promise about the tables is noticed when it is broken, and none is seen as broken when all is well."""

from datetime import UTC, datetime
from typing import Any, Final

import pytest
from sqlalchemy import Executable, delete, insert, text, update

from app.db.connection import Connection
from app.db.tables.assets import assets
from app.db.tables.attempts import attempts
from app.db.tables.idempotency_keys import idempotency_keys
from app.db.tables.jobs import jobs
from app.jobs.integrity import CHECKS, IDS_MAX, check_integrity
from tests.jobs.conftest import Store

LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
FAR: Final = datetime(2099, 1, 1, tzinfo=UTC)
OF_MONEY: Final = {"budget_astray", "budget_missing", "correction_astray"}
"""Checks that the ledger's own tests break."""
OF_WEBHOOKS: Final = {
    "end_untold",
    "end_mistold",
    "delivery_missing",
    "delivery_astray",
    "delivery_forgotten",
}
"""Checks that the webhooks' own tests break."""


def job(status: str, /, **values: Any) -> Executable:
    """Change the job in this state."""
    return update(jobs).where(jobs.c.status == status).values(**values)


def attempt(state: str, /, **values: Any) -> Executable:
    """Change the attempt in this state."""
    return update(attempts).where(attempts.c.state == state).values(**values)


PLANTS: Final[dict[str, list[Executable]]] = {
    "bought_too_often": [attempt("succeeded", pictures=5), job("succeeded", spare=1)],
    "counter_too_high": [job("in_progress", to_buy=1)],
    "hold_outlives_job": [job("succeeded", to_buy=1)],
    "not_settled": [attempt("succeeded", settled="released")],
    "wrongly_dated": [job("succeeded", finished_at=None)],
    "ended_without_reason": [job("succeeded", status="failed")],
    "succeeded_empty": [delete(assets)],
    "too_many_results": [job("succeeded", n=0)],
    "result_misses_picture": [job("succeeded", result={"files": []})],
    "picture_not_kept_as_late": [job("succeeded", status="cancelled")],
    "picture_without_purchase": [attempt("succeeded", state="unknown")],
    "picture_lost": [attempt("succeeded", pictures=2)],
    "paid_pictures_withheld": [job("succeeded", status="failed", finished_at=FAR)],
    "fence_went_back": [attempt("accepted", owner_token=99)],
    "order_shared": [update(attempts).values(ticket="img_1", upstream="therouter")],
    "key_astray": [
        insert(idempotency_keys).values(
            team_id="team_default", key="k", fingerprint=b"other", job_id="job_none", expires_at=FAR
        )
    ],
    "picture_astray": [update(assets).values(job_id="job_none")],
    "job_stuck": [job("in_progress", deadline_at=LONG_AGO)],
    "attempt_forgotten": [attempt("accepted", outcome_due=LONG_AGO)],
    "lease_forgotten": [job("in_progress", lease_until=LONG_AGO)],
}


async def unguard(connection: Connection) -> None:
    """Take away what keeps these mistakes out of the tables."""
    await connection.execute(text("DROP INDEX attempts_ticket"))
    if connection.dialect.name == "sqlite":
        await connection.execute(text("PRAGMA ignore_check_constraints = ON"))
        for trigger in ("jobs_guard", "jobs_fence", "attempts_guard"):
            await connection.execute(text(f"DROP TRIGGER {trigger}"))
        return
    for table in (jobs, attempts):
        await connection.execute(text(f"ALTER TABLE {table.name} DISABLE TRIGGER USER"))
        for constraint in table.constraints:
            if type(constraint).__name__ == "CheckConstraint":
                await connection.execute(text(f"ALTER TABLE {table.name} DROP CONSTRAINT {constraint.name}"))


@pytest.fixture
async def busy(store: Store) -> Store:
    """A job that succeeded, and one whose order is open."""
    await store.job()
    (made,) = await store.open(await store.claim())
    await store.succeed(made)
    await store.job()
    (ordered,) = await store.open(await store.claim(), upstream="therouter")
    await store.moves.accept(ordered, "img_1")
    return store


async def test_nothing_is_wrong_with_tables_that_are_right(busy: Store) -> None:
    async with busy.database.reading() as connection:
        assert await check_integrity(connection) == []


@pytest.mark.parametrize("name", PLANTS)
async def test_a_broken_promise_is_noticed(busy: Store, name: str) -> None:
    async with busy.database.transaction() as connection:
        await unguard(connection)
        for change in PLANTS[name]:
            await connection.execute(change)
        found = {violation.name: violation for violation in await check_integrity(connection)}
    assert name in found
    assert found[name].ids


async def test_a_violation_names_a_few_of_many(busy: Store) -> None:
    for _ in range(IDS_MAX + 2):
        await busy.job()
    async with busy.database.transaction() as connection:
        await connection.execute(job("queued", deadline_at=LONG_AGO))
        [found] = await check_integrity(connection)
    assert len(found.ids) == IDS_MAX


def test_every_check_is_broken_once_by_a_test() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))
    assert set(names) - OF_MONEY - OF_WEBHOOKS == PLANTS.keys()
