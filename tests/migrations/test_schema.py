"""What the migrations build is what the tables say, on both databases, however often they are run."""

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Index, Table, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.db.engine import Database
from app.db.migrate import current_revision, newest_revision, upgrade
from app.db.tables.metadata import METADATA
from app.db.tables.registry import TABLES


@contextmanager
def looking(url: str) -> Iterator[Any]:
    """Run a function of a synchronous connection on the database at `url`."""
    driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"

    async def run(look: Any) -> Any:
        engine = create_async_engine(make_url(url).set(drivername=driver))
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(look)
        finally:
            await engine.dispose()

    yield lambda look: asyncio.run(run(look))


def test_the_tables_are_what_the_migrations_build(database_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, METADATA))

    with looking(database_url) as look:
        assert look(differences) == []


def test_every_table_is_registered() -> None:
    assert {table.name for table in TABLES} == set(METADATA.tables)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_checks_are_what_the_tables_say(table: Table, database_url: str) -> None:
    declared = {str(item.name) for item in table.constraints if type(item).__name__ == "CheckConstraint"}

    def built(connection: Connection) -> set[str]:
        return {str(item["name"]) for item in inspect(connection).get_check_constraints(table.name)}

    with looking(database_url) as look:
        assert look(built) == declared


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_partial_indexes_are_what_the_tables_say(table: Table, database_url: str) -> None:
    def condition(index: Index, dialect: str) -> str | None:
        where = index.dialect_options[dialect]["where"]
        return None if where is None else _plain(str(where))

    def built(connection: Connection) -> dict[str, str | None]:
        dialect = connection.dialect.name
        found = inspect(connection).get_indexes(table.name)
        return {
            str(item["name"]): _plain(str(where))
            if (where := item.get("dialect_options", {}).get(f"{dialect}_where")) is not None
            else None
            for item in found
            if item["name"] in {str(index.name) for index in table.indexes}
        }

    with looking(database_url) as look:
        dialect = "sqlite" if database_url.startswith("sqlite") else "postgresql"
        assert look(built) == {str(index.name): condition(index, dialect) for index in table.indexes}


def _plain(condition: str) -> str:
    """A condition without what Postgres adds when it prints one."""
    for written, meant in (
        ("= ANY (ARRAY[", "IN ("),
        ("])", ")"),
        ("::text", ""),
    ):
        condition = condition.replace(written, meant)
    return condition.replace("(", "").replace(")", "").replace(" ", "")


def test_a_second_run_changes_nothing(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    upgrade(empty_database_url)

    async def revision() -> str | None:
        database = Database(empty_database_url)
        try:
            async with database.reading() as connection:
                return await current_revision(connection)
        finally:
            await database.close()

    assert asyncio.run(revision()) == newest_revision()


def test_processes_that_start_at_once_migrate_once(empty_postgres_url: str) -> None:
    processes = multiprocessing.get_context("spawn")
    starters = [processes.Process(target=upgrade, args=(empty_postgres_url,)) for _ in range(3)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert [starter.exitcode for starter in starters] == [0, 0, 0]


def test_a_migration_gives_way_to_whoever_holds_a_table(empty_postgres_url: str) -> None:
    """Lock and statement timeouts are set on the connection that migrates."""

    async def note() -> None:
        database = Database(empty_postgres_url)
        async with database.transaction() as connection:
            await connection.execute(text("CREATE TABLE noted (lock text, statement text)"))
            await connection.execute(
                text(
                    "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
                    " INSERT INTO noted VALUES (current_setting('lock_timeout'),"
                    " current_setting('statement_timeout')); END $$"
                )
            )
            await connection.execute(
                text("CREATE EVENT TRIGGER notes ON ddl_command_start EXECUTE FUNCTION note()")
            )
        await database.close()

    async def noted() -> list[tuple[str, str]]:
        database = Database(empty_postgres_url)
        async with database.reading() as connection:
            rows = [tuple(row) for row in await connection.execute(text("SELECT DISTINCT * FROM noted"))]
        await database.close()
        return rows

    asyncio.run(note())
    upgrade(empty_postgres_url)
    assert asyncio.run(noted()) == [("5s", "5min")]
