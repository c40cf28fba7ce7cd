"""A broken promise about webhooks is found, and told by its name."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import delete, update

from app.db.engine import Database
from app.db.tables.webhook_deliveries import webhook_deliveries as deliveries
from app.db.tables.webhook_endpoints import webhook_endpoints as endpoints
from app.db.tables.webhook_events import webhook_events as events
from app.db.types import from_now
from app.jobs.integrity import OVERDUE_S, check_integrity
from tests.jobs.conftest import Store
from tests.webhooks.test_outbox import HOOK, endpoint

BROKEN: dict[str, Callable[[str], list[Any]]] = {
    "end_untold": lambda _: [delete(deliveries), delete(events)],
    "end_mistold": lambda _: [update(events).values(type="job.failed")],
    "delivery_missing": lambda _: [delete(deliveries)],
    "delivery_astray": lambda stranger: [update(endpoints).values(team_id=stranger)],
    "delivery_forgotten": lambda _: [update(deliveries).values(next_at=from_now(-OVERDUE_S - 1))],
}


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """Jobs on SQLite and on Postgres in turn."""
    database = Database(database_url)
    yield Store(database)
    await database.close()


@pytest.mark.parametrize("hook", [HOOK, None])
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_promise_is_found(store: Store, name: str, hook: str | None) -> None:
    await endpoint(store)
    await store.moves.cancel(await store.job(webhook_url=hook), None)
    stranger = await store.team("strangers")
    async with store.database.transaction() as connection:
        assert await check_integrity(connection) == []
        for statement in BROKEN[name](stranger):
            await connection.execute(statement)
        assert [item.name for item in await check_integrity(connection)] == [name]
