"""A gateway without vendors whose webhooks are sent by hand, and receivers on loopback that do as they are told."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.assembly import Parts
from app.db.tables.jobs import jobs
from app.db.tables.webhook_deliveries import webhook_deliveries
from app.db.tables.webhook_endpoints import webhook_endpoints
from app.db.tables.webhook_events import webhook_events
from app.jobs.integrity import check_integrity
from app.kit.http import GuardedClient
from app.webhooks.records import Delivery, EventType
from tests.admin.conftest import offline_catalog
from tests.jobs.conftest import Store
from tests.kit.scripted_server import Exchange, Request, ScriptedServer, scripted_server
from tests.kitchen import open_kitchen, write_settings

TEAM = "team_lab"


@dataclass
class Receiver:
    """Takes events on loopback, and answers each as `answer` says."""

    server: ScriptedServer
    status: int = 204
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.server.url}/hook?token=1"

    @property
    def requests(self) -> list[Request]:
        return self.server.requests

    @property
    def ids(self) -> list[str]:
        """The `webhook-id` of each request, in the order of arrival."""
        return [request.headers["webhook-id"] for request in self.requests]


@dataclass
class Post:
    """A gateway's outbox, and what a test does with it."""

    parts: Parts
    store: Store
    client: GuardedClient
    open_receiver: Callable[[], Any]

    async def end_job(self, url: str | None = None, *, team: str = "lab", **columns: Any) -> str:
        """Let a job end that was to be told at `url`; its id."""
        job_id = await self.store.job(team, webhook_url=url, **columns)
        await self.store.moves.cancel(job_id, None)
        return job_id

    async def endpoint(self, url: str, team: str = "lab", *events: EventType) -> str:
        """Register a receiver of a team's events; its id."""
        team_id = await self.store.team(team)
        created, _ = await self.parts.webhooks.create_endpoint(team_id, url, events or list(EventType))
        return created.id

    async def send(self) -> int:
        """Try what is due; how many tries."""
        return await self.parts.deliverer.deliver_due()

    async def deliveries(self, job_id: str | None = None) -> list[Delivery]:
        """What there is to deliver, oldest first."""
        found, _ = await self.parts.webhooks.list_deliveries(job_id=job_id, limit=100)
        return list(reversed(found))

    async def delivery(self, job_id: str | None = None) -> Delivery:
        """The one delivery."""
        (found,) = await self.deliveries(job_id)
        return found

    async def pass_time(self, seconds: float) -> None:
        """Move all that webhooks remember into the past, as if so many seconds had gone by."""
        past = timedelta(seconds=seconds)
        async with self.parts.database.transaction() as connection:
            for table, names in (
                (jobs, ("created_at", "finished_at")),
                (webhook_events, ("created_at",)),
                (webhook_deliveries, ("created_at", "next_at", "ends_at", "lease_until", "finished_at")),
                (webhook_endpoints, ("created_at", "owed_from", "failing_since")),
            ):
                for row in (await connection.execute(select(table))).all():
                    moments = {name: getattr(row, name) for name in names}
                    moved = {name: at - past for name, at in moments.items() if at is not None}
                    await connection.execute(update(table).where(table.c.id == row.id).values(**moved))


@pytest.fixture
async def post(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> AsyncIterator[Post]:
    """A gateway on SQLite and on Postgres in turn; its promises hold at the end."""
    monkeypatch.setenv("OPENAI_TEST_KEY", "sk-made-up")
    settings = write_settings(monkeypatch, tmp_path, offline_catalog(), database_url=database_url)
    async with AsyncExitStack() as closing:
        kitchen = await closing.enter_async_context(open_kitchen(settings, is_working=False))

        async def open_receiver() -> Receiver:
            made: list[Receiver] = []

            async def script(exchange: Exchange) -> None:
                await exchange.request()
                (receiver,) = made
                await exchange.answer(receiver.status, receiver.body, **receiver.headers)

            made.append(Receiver(await closing.enter_async_context(scripted_server(script))))
            return made[0]

        client = GuardedClient(allow_networks=settings.allow_networks)
        closing.push_async_callback(client.aclose)
        yield Post(kitchen.parts, Store(kitchen.parts.database), client, open_receiver)
        async with kitchen.parts.database.reading() as connection:
            assert [
                item for item in await check_integrity(connection) if item.name != "delivery_forgotten"
            ] == []


@pytest.fixture
async def receiver(post: Post) -> Receiver:
    """A receiver that takes everything."""
    made: Receiver = await post.open_receiver()
    return made
