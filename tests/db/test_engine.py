"""A database that is away is told apart from a mistake, in whichever of the drivers' words it says so."""

import asyncio
import struct

import pytest
import structlog
from sqlalchemy import insert

from app.db.engine import Database, StoreUnavailable
from app.db.tables.teams import teams


async def _shutting_down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a Postgres that is shutting down: no TLS, then its refusal of the connection."""
    (length,) = struct.unpack("!I", await reader.readexactly(4))
    if length == 8:  # asks for TLS first
        await reader.readexactly(4)
        writer.write(b"N")
        (length,) = struct.unpack("!I", await reader.readexactly(4))
    await reader.readexactly(length - 4)
    fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is shutting down\0\0"
    writer.write(b"E" + struct.pack("!I", len(fields) + 4) + fields)
    await writer.drain()
    writer.close()


async def test_a_database_that_refuses_connections_while_it_restarts_is_unavailable() -> None:
    server = await asyncio.start_server(_shutting_down, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        database = Database(f"postgresql://me:secret@127.0.0.1:{port}/darkroom")
        with pytest.raises(StoreUnavailable):
            async with database.transaction():
                pass
        with pytest.raises(StoreUnavailable):
            async with database.reading():
                pass
        await database.close()


async def test_what_is_to_happen_once_committed_happens_then_and_only_then(database_url: str) -> None:
    database = Database(database_url)
    done: list[str] = []
    async with database.transaction() as connection:
        database.once_committed(connection, lambda: done.append("first"))
        database.once_committed(connection, lambda: done.append("second"))
        assert done == []
    assert done == ["first", "second"]

    async def fail() -> None:
        async with database.transaction() as connection:
            database.once_committed(connection, lambda: done.append("never"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.transaction():
        pass
    assert done == ["first", "second"]
    await database.close()


@pytest.mark.parametrize(
    "values",
    [
        {"id": "team_canary", "name": "first", "limits": {}},  # there is one already
        {"id": "team_other", "name": "canary", "limits": None},
        {"id": "team_other", "name": ["canary"], "limits": {}},
        {"id": "team_other", "name": "canary\x00", "limits": None},
    ],
)
async def test_what_the_database_refuses_is_told_without_its_values(
    database_url: str, values: dict[str, object]
) -> None:
    database = Database(database_url)
    async with database.transaction() as connection:
        await connection.execute(insert(teams).values(id="team_canary", name="canary of a name", limits={}))
    with pytest.raises(Exception) as refused:  # noqa: PT011 - each driver has its own
        async with database.transaction() as connection:
            await connection.execute(insert(teams).values(**values))
    entry = structlog.processors.format_exc_info(None, "error", {"exc_info": refused.value})
    said = entry["exception"]
    assert "canary" not in str(refused.value)
    # What is quoted of this file is the test's own.
    assert "canary" not in "\n".join(line for line in said.splitlines() if not line.startswith("    "))
    await database.close()
