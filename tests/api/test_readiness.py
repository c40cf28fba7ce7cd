"""`/readyz` while a release is rolled out: the tables are migrated first, then the processes are replaced in turn."""

from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.db.migrate import newest_revision
from tests.house import opener
from tests.simulators.openai import OpenAi


@pytest.mark.parametrize(
    "revision, status",
    [("0001", 503), ("9999", 200)],
    ids=["before the migration the new release waits", "after it the old release goes on"],
)
async def test_a_process_serves_on_its_own_schema_and_on_a_newer_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str, revision: str, status: int
) -> None:
    house = opener(monkeypatch, tmp_path, sqlite_url)
    async with OpenAi(api_key="sk-canary-0123456789") as vendor, house(vendor, is_working=False) as running:
        assert (await running.client.get("/readyz")).status_code == 200

        await _migrate_to(sqlite_url, revision)
        answer = await running.client.get("/readyz")

        assert answer.status_code == status
        if status == 503:
            told = f"the schema is at {revision}, not {newest_revision()}: run `darkroom migrate`"
            assert answer.json()["checks"]["database"] == told


async def _migrate_to(url: str, revision: str) -> None:
    database = Database(url, pool_size=1)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
    await database.close()
