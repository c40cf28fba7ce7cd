"""Two hundred requests at once, a budget for forty pictures, the real engine, and a vendor that keeps its own books."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select

from app.db.engine import Database, StoreUnavailable
from app.db.tables.budgets import budgets
from app.jobs.integrity import check_integrity
from app.jobs.lifecycle import Status
from app.kit.json import Json
from app.ledger.errors import InsufficientQuota
from tests.kitchen import Kitchen, catalog_of, open_kitchen, write_settings
from tests.simulators.openai import OpenAi

BUDGET_USD = "0.24"
"""Forty pictures at the 0.006 USD of the kitchen's catalog."""


async def _watch(database: Database, seen: list[tuple[int, int]]) -> None:
    """Look at the budget again and again, as it stands between any two commits."""
    while True:
        async with database.reading() as connection:
            row = (await connection.execute(select(budgets))).first()
        if row is not None:
            seen.append((row.spent_micros + row.reserved_micros, row.limit_micros))
        await asyncio.sleep(0)


async def _order(kitchen: Kitchen, number: int) -> str | None:
    """Ask as a client does: with a key, and again when the database was too busy to answer."""
    while True:
        try:
            return await kitchen.order(f"boat {number}", key=str(number), size="1024x1024", quality="low")
        except InsufficientQuota:
            return None
        except StoreUnavailable:
            continue


async def test_two_hundred_requests_at_once_buy_exactly_what_the_budget_pays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str
) -> None:
    async with OpenAi(api_key="sk-test") as vendor:
        monkeypatch.setenv("OPENAI_TEST_KEY", vendor.api_key)
        settings = write_settings(
            monkeypatch, tmp_path, catalog_of({"openai": vendor}), database_url=postgres_url
        )
        eyes = Database(postgres_url, pool_size=2)
        async with open_kitchen(settings) as kitchen:
            limits: dict[str, Json] = {"budget_month_usd": BUDGET_USD}
            await kitchen.parts.accounts.change_team(kitchen.team_id, limits=limits)
            seen: list[tuple[int, int]] = []
            watching = asyncio.create_task(_watch(eyes, seen))
            answers = await asyncio.gather(*(_order(kitchen, number) for number in range(200)))
            ids = [item for item in answers if item is not None]
            views = await asyncio.gather(*(kitchen.served(job_id, within_s=60) for job_id in ids))
            watching.cancel()
            async with eyes.reading() as connection:
                (row,) = (await connection.execute(select(budgets))).all()
                assert await check_integrity(connection) == []
        await eyes.close()
        assert (len(ids), vendor.ledger.charges) == (40, 40)
        assert {view.job.status for view in views} == {Status.SUCCEEDED}
        assert (row.reserved_micros, row.spent_micros) == (0, 240_000)
        assert seen
        assert all(committed <= limit for committed, limit in seen)
