"""The database: connections, transactions, and what to call it when it does not answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from asyncpg import PostgresError
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.db.connection import Connection
from app.db.postgres import Observer, Pool, PostgresConnection

# Postgres ends a statement that hangs; the client stops waiting soon after, should the server itself hang.
_SERVER_SETTINGS: Final = {
    "application_name": "darkroom",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "tcp_user_timeout": "10000",
    # A GIN or partial index beats a plan compiled for somebody else's parameters.
    "jit": "off",
}
STATEMENT_TIMEOUT_S: Final = 5.0
"""What one statement of the service may take."""
# Beyond that, a server that does not even end its statements counts as hanging.
_SERVER_SILENT_S: Final = 1.0
_POOL_TIMEOUT_S: Final = 3.0
_TURN_LOOK_S: Final = 0.5
_TURN_S: Final = 20.0
"""How long a caller queues for a connection in a rush; at 100 transactions a second, 2,000 are served by then."""
_CONNECT_TIMEOUT_S: Final = 3.0
# SQLSTATE classes and codes that mean "not now": connection lost, shutting down, cancelled, deadlock, disk full.
_PASSING_STATES: Final = ("08", "53", "57", "58", "40001", "40P01", "55P03", "25P03")


class StoreUnavailable(Exception):
    """The database did not answer in time; nothing is known of a transaction that was being committed."""


class Database:
    """A pool of connections to Postgres, or one SQLite file."""

    def __init__(
        self, url: str, *, pool_size: int = 10, statement_timeout_s: float = STATEMENT_TIMEOUT_S
    ) -> None:
        self.is_sqlite = url.startswith("sqlite")
        # SQLite has one writer at a time; queueing here is faster than letting it busy-wait.
        self._write_lock = asyncio.Lock()
        # A thousand callers at once wait here in their order, instead of losing a race for the pool.
        self._is_silent = False
        self._turns = asyncio.Semaphore(1_000_000 if self.is_sqlite else pool_size)
        self._observers: list[Observer] = []
        self._afterwards: dict[Connection, list[Callable[[], None]]] = {}
        if self.is_sqlite:
            self._sqlite = _sqlite_engine(url, self._observers)
        else:
            self._postgres = _postgres_pool(url, statement_timeout_s)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Run one short transaction, committed at the end; READ COMMITTED on Postgres, exclusive on SQLite.

        Never hold it across a call to anything but the database.

        Raises:
            StoreUnavailable: the database did not answer in time; the transaction may or may not have landed.
        """
        acts: list[Callable[[], None]] = []
        async with self._begin() as connection:
            self._afterwards[connection] = acts
            try:
                yield connection
            finally:
                del self._afterwards[connection]
        for act in acts:
            act()

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[Connection]:
        if self.is_sqlite:
            with _translated():
                async with self._write_lock, self._sqlite.begin() as connection:
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                    yield connection
            return
        with _translated():
            async with self._turn(), self._postgres.transaction() as driver:
                yield PostgresConnection(driver, self._observers)

    def once_committed(self, connection: Connection, act: Callable[[], None]) -> None:
        """Call `act` when this transaction has been committed, and never if it is not known to be: for counting."""
        self._afterwards[connection].append(act)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Lend a connection for queries that change nothing, each of which sees what is committed by then.

        Under READ COMMITTED that is so in a transaction or not; without one, a look takes two round trips less.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        with _translated():
            if self.is_sqlite:
                async with self._sqlite.connect() as connection:
                    yield connection
            else:
                async with self._turn(), self._postgres.lent() as driver:
                    yield PostgresConnection(driver, self._observers)

    @asynccontextmanager
    async def single(self) -> AsyncIterator[Connection]:
        """Lend a connection for one statement that is a transaction by itself, which saves two round trips.

        Raises:
            StoreUnavailable: the database did not answer in time; the statement may or may not have landed.
        """
        if self.is_sqlite:
            async with self.transaction() as connection:
                yield connection
        else:
            async with self.reading() as connection:
                yield connection

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Tell an observer of each statement that is sent."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Hold one of the pool's connections, as it were, in the order of asking."""
        await self._take_turn()
        try:
            yield
            self._is_silent = False
        except BaseException as exc:
            self._is_silent = _is_passing(exc)
            raise
        finally:
            self._turns.release()

    async def _take_turn(self) -> None:
        """Wait for a connection to be free; not for long while the database is silent.

        Raises:
            TimeoutError: none was free in time.
        """
        if not self._turns.locked():
            await self._turns.acquire()  # at once
            return
        clock = asyncio.get_running_loop().time
        began = clock()
        turn = asyncio.ensure_future(self._turns.acquire())
        try:
            while not turn.done():
                await asyncio.wait({turn}, timeout=_TURN_LOOK_S)
                self._check_patience(clock() - began)
        except BaseException:
            if not turn.cancel() and not turn.cancelled():
                self._turns.release()
            raise

    def _check_patience(self, waited_s: float) -> None:
        if waited_s > (_POOL_TIMEOUT_S if self._is_silent else _TURN_S):
            raise TimeoutError(f"no connection was free within {waited_s:.0f} s")

    async def close(self) -> None:
        """Close every connection."""
        if self.is_sqlite:
            await self._sqlite.dispose()
        else:
            await self._postgres.close()


class _translated:  # noqa: N801 - reads as a clause of the with statement
    """Turn the drivers' many ways of saying "gone" into StoreUnavailable; everything else passes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if exc is not None and _is_passing(exc):
            raise StoreUnavailable(f"the database did not answer: {type(exc).__name__}") from exc


def _is_passing(exc: BaseException) -> bool:
    match exc:
        case IntegrityError() | ProgrammingError():
            return False
        case TimeoutError() | OSError():
            return True
        case PostgresError():
            return (exc.sqlstate or "").startswith(_PASSING_STATES)
        case DBAPIError():  # SQLite's, which has no codes at this level
            is_locked = "locked" in str(exc.orig) or "disk" in str(exc.orig)
            return exc.connection_invalidated or is_locked
        case _:
            return False


def _postgres_pool(url: str, statement_timeout_s: float) -> Pool:
    return Pool(
        url,
        settings=_SERVER_SETTINGS | {"statement_timeout": str(int(statement_timeout_s * 1000))},
        timeout_s=statement_timeout_s + _SERVER_SILENT_S,
        connect_s=_CONNECT_TIMEOUT_S,
    )


def _sqlite_engine(url: str, observers: list[Observer]) -> AsyncEngine:
    # An error of the database is logged, and the values of its statement may be a prompt.
    engine = create_async_engine(make_url(url).set(drivername="sqlite+aiosqlite"), hide_parameters=True)

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver must not open transactions by itself: `BEGIN IMMEDIATE` takes the write lock at once.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def _tell(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        for observer in observers:
            observer(statement, values)

    return engine


def row_values(row: Any) -> Mapping[str, Any]:
    """A result row as a mapping from column name to value."""
    mapping: Mapping[str, Any] = row._mapping  # noqa: SLF001 - SQLAlchemy's documented accessor
    return mapping
