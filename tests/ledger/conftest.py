"""A front desk with budgets on a real database, and a worker that is moved by hand."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from app.assets.records import Picture
from app.db.engine import Database, row_values
from app.db.tables.api_keys import api_keys
from app.db.tables.budgets import budgets
from app.db.tables.teams import teams
from app.domain.money import Certainty
from app.domain.pictures import PictureFormat
from app.jobs.integrity import check_integrity
from app.jobs.records import Attempt, Job
from app.kit.ids import new_id
from app.ledger.budgets import Budget, budget_from
from tests.jobs.conftest import Store
from tests.jobs.shop import front_door, submission

TEAM = "team_default"
KEY = "key_1"


class Till:
    """A team with one key, its limits, and what became of the money."""

    def __init__(self, database: Database) -> None:
        self.store = Store(database)
        self.database = database
        self.door = front_door(database)

    async def open(self) -> None:
        await self.store.team()
        async with self.database.transaction() as connection:
            row = {
                "id": KEY,
                "team_id": TEAM,
                "name": "one",
                "role": "team",
                "lookup": "one",
                "digest": b"",
                "hint": "",
                "limits": {},
            }
            await connection.execute(insert(api_keys).values(**row))

    async def limit(self, *, of_key: bool = False, **limits: Any) -> None:
        """Put limits in force, and lift the others."""
        table, owner_id = (api_keys, KEY) if of_key else (teams, TEAM)
        async with self.database.transaction() as connection:
            await connection.execute(update(table).where(table.c.id == owner_id).values(limits=limits))

    async def submit(self, **fields: Any) -> Job:
        return (await self.door.submit(submission(TEAM, **fields))).job

    async def start(self, *shares: int, **fields: Any) -> tuple[Job, tuple[Attempt, ...]]:
        """Submit a job, claim it and open attempts for these numbers of pictures, or for all."""
        await self.submit(**fields)
        job = await self.store.claim()
        return job, await self.store.open(job, *shares)

    async def deliver(self, attempt: Attempt, cost_micros: int, *, made: int | None = None) -> Job:
        pictures = [a_picture() for _ in range(attempt.pictures if made is None else made)]
        return await self.store.moves.succeed(
            attempt,
            pictures,
            usage=None,
            resolved={"quality": "low"},
            cost_micros=cost_micros,
            certainty=Certainty.ESTIMATED,
            max_rounds=4,
            dearest_micros=2 * cost_micros,
        )

    async def rows(self) -> list[Budget]:
        """Every budget, once the integrity checks have found nothing wrong with any of them."""
        async with self.database.reading() as connection:
            assert await check_integrity(connection) == []
            rows = await connection.execute(select(budgets).order_by(budgets.c.id))
            return [budget_from(row_values(row)) for row in rows]

    async def books(self) -> tuple[int, int]:
        """What the one budget holds and has spent."""
        (row,) = await self.rows()
        return row.reserved_micros, row.spent_micros


def a_picture() -> Picture:
    """A picture that is said to be in storage."""
    return Picture(
        file_id=new_id("file"),
        key=new_id("key"),
        format=PictureFormat.PNG,
        width_px=1024,
        height_px=1024,
        size_bytes=10,
        sha256=b"",
    )


@pytest.fixture
async def till(database_url: str) -> AsyncIterator[Till]:
    """On SQLite and on Postgres in turn."""
    database = Database(database_url)
    made = Till(database)
    await made.open()
    yield made
    await database.close()
