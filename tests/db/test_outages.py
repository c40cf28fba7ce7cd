"""What the service sees of a Postgres that dies, stops or hangs: one error, within a bound, and nothing to restart."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from sqlalchemy import text

from app.db.engine import Database, StoreUnavailable
from tests.chaos.faultproxy import FaultProxy, Toxic, Way
from tests.harness.servers import PostgresServer

pytestmark = pytest.mark.timeout(90)

ANSWER_S = 11.0
"""3 s for a free connection, 5 s for the statement, 1 s for a server that does not even end it, 0.5 s to leave it; the
rest is for a busy machine."""
CALLERS = 15
"""More than the pool has connections."""


@pytest.fixture(scope="module")
def _server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def server(_server: PostgresServer) -> Iterator[PostgresServer]:
    """A Postgres of this module's own, running before and after."""
    _server.start()
    yield _server
    if _server.is_running():
        _server.resume()


@pytest.fixture
async def database(server: PostgresServer) -> AsyncIterator[Database]:
    """A warm pool: connections that do not know yet what will happen to them."""
    database = Database(server.url)
    await asyncio.gather(*(ask(database) for _ in range(CALLERS)))
    yield database
    if server.is_running():
        server.resume()
    await database.close()


async def ask(database: Database) -> int:
    """A small transaction."""
    async with database.transaction() as connection:
        answer: int = (await connection.execute(text("SELECT 1"))).scalar_one()
        return answer


async def refusal_s(database: Database) -> float:
    """How long a caller waits to be told that the database is away."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await ask(database)
    return time.monotonic() - began


async def recovered(database: Database) -> bool:
    """Whether the database answers again; each connection of old may fail once before."""
    for _ in range(50):
        try:
            return await ask(database) == 1
        except StoreUnavailable:
            await asyncio.sleep(0.1)
    return False


async def test_a_killed_database_is_told_at_once_and_used_again_when_it_is_back(
    server: PostgresServer, database: Database
) -> None:
    server.kill()
    waits = await asyncio.gather(*(refusal_s(database) for _ in range(CALLERS)))
    assert max(waits) < ANSWER_S
    await asyncio.to_thread(server.start)
    assert await recovered(database)


async def test_a_database_that_is_shut_down_is_told_at_once_and_used_again_when_it_is_back(
    server: PostgresServer, database: Database
) -> None:
    server.stop("immediate")
    waits = await asyncio.gather(*(refusal_s(database) for _ in range(CALLERS)))
    assert max(waits) < ANSWER_S
    await asyncio.to_thread(server.start)
    assert await recovered(database)


async def test_a_transaction_that_is_cut_off_says_that_nothing_is_known_of_it(
    server: PostgresServer, database: Database
) -> None:
    async def cut_off() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT 1"))
            server.kill()
            await connection.execute(text("SELECT 1"))

    with pytest.raises(StoreUnavailable):
        await cut_off()


class HeldEnd(Toxic):
    """Passes what is said, and never that the connection has ended."""

    way: Way = "down"

    def __init__(self) -> None:
        self.is_reached = asyncio.Event()

    async def closing(self) -> None:
        self.is_reached.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("is_amid", [False, True])
async def test_a_goodbye_between_two_statements_is_an_outage(server: PostgresServer, is_amid: bool) -> None:
    end = HeldEnd()
    admin = await asyncpg.connect(server.url)

    async def say_goodbye() -> None:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        await end.is_reached.wait()
        await admin.fetchval("SELECT 1")  # a turn of the loop, in which the goodbye is read

    async def use(database: Database) -> None:
        async with database.transaction() as connection:
            if is_amid:
                await connection.execute(text("SELECT 1"))
                await say_goodbye()
            await connection.execute(text("SELECT 1"))

    async with FaultProxy.before(server.url) as proxy:
        database = Database(proxy.url(server.url))
        await ask(database)
        with proxy.toxic(end):
            if not is_amid:
                await say_goodbye()
            with pytest.raises(StoreUnavailable):
                await use(database)
        assert await ask(database) == 1
        await database.close()
    await admin.close()


async def test_a_hanging_database_keeps_no_caller_longer_than_its_bound(
    server: PostgresServer, database: Database
) -> None:
    server.pause()
    waits = await asyncio.gather(*(refusal_s(database) for _ in range(CALLERS)))
    assert max(waits) < ANSWER_S
    assert await refusal_s(database) < ANSWER_S  # new connections are bounded too
    server.resume()
    assert await recovered(database)


async def test_a_database_that_hangs_amid_a_transaction_is_told_within_the_bound(
    server: PostgresServer, database: Database
) -> None:
    async def amid() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT 1"))
            server.pause()
            await connection.execute(text("SELECT 1"))

    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await amid()
    assert time.monotonic() - began < ANSWER_S
    server.resume()
    assert await recovered(database)


async def test_a_database_that_is_still_starting_is_away(server: PostgresServer, database: Database) -> None:
    """Its port answers, and every connection is refused with a reason."""
    server.kill()
    began = asyncio.ensure_future(asyncio.to_thread(server.start))
    refused: list[str] = []
    while not began.done():
        try:
            assert await ask(database) == 1
        except StoreUnavailable as exc:
            refused.append(str(exc))
        await asyncio.sleep(0.001)
    await began
    assert refused
    assert await recovered(database)


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(
    server: PostgresServer,
) -> None:
    impatient = Database(server.url, statement_timeout_s=0.2)

    async def wait() -> None:
        async with impatient.reading() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(StoreUnavailable):
        await wait()
    assert await ask(impatient) == 1
    await impatient.close()
