"""The database: connections, transactions, and what to call it when it does not answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from asyncpg import Connection, PostgresError
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

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
_PARTING_S: Final = 0.5
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
        self._engine = (
            _sqlite_engine(url) if self.is_sqlite else _postgres_engine(url, pool_size, statement_timeout_s)
        )
        # Under READ COMMITTED each statement sees what is committed by then, in a transaction or not; without one, a
        # look takes two round trips less. SQLite's driver opens none by itself.
        self._reading_engine = (
            self._engine if self.is_sqlite else self._engine.execution_options(isolation_level="AUTOCOMMIT")
        )

    @property
    def engine(self) -> AsyncEngine:
        """SQLAlchemy's engine, for instrumentation."""
        return self._engine

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Run one short transaction, committed at the end; READ COMMITTED on Postgres, exclusive on SQLite.

        Never hold it across a call to anything but the database.

        Raises:
            StoreUnavailable: the database did not answer in time; the transaction may or may not have landed.
        """
        if self.is_sqlite:
            async with self._write_lock, self._begin() as connection:
                yield connection
        else:
            async with self._begin() as connection:
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for queries that change nothing, each of which sees what is committed by then.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        with _translated():
            async with self._turn(), self._reading_engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        with _translated():
            async with self._turn(), self._engine.begin() as connection:
                if self.is_sqlite:
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection

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
        await self._engine.dispose()


class _translated:  # noqa: N801 - reads as a clause of the with statement
    """Turn the drivers' many ways of saying "gone" into StoreUnavailable; everything else passes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if exc is not None and _is_passing(exc):
            raise StoreUnavailable(f"the database did not answer: {type(exc).__name__}") from exc


class _Connection(Connection):
    """A connection that can be left although the server hangs."""

    async def close(self, *, timeout: float | None = None) -> None:
        """Say goodbye if the server listens, else just leave."""
        with contextlib.suppress(TimeoutError):
            await super().close(timeout=min(timeout or _PARTING_S, _PARTING_S))


def _is_passing(exc: BaseException) -> bool:
    match exc:
        case IntegrityError() | ProgrammingError():
            return False
        case PoolTimeout() | TimeoutError() | OSError():
            return True
        case PostgresError():  # while connecting, SQLAlchemy passes on what the driver says
            return (exc.sqlstate or "").startswith(_PASSING_STATES)
        case DBAPIError():
            state = getattr(exc.orig, "sqlstate", None)
            locked = "locked" in str(exc.orig) or "disk" in str(exc.orig)  # SQLite has no codes at this level
            return (
                exc.connection_invalidated
                or (state is None and locked)
                or (state or "").startswith(_PASSING_STATES)
            )
        case _:
            return False


def _postgres_engine(url: str, pool_size: int, statement_timeout_s: float) -> AsyncEngine:
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_TIMEOUT_S,
        pool_recycle=1800,
        connect_args={
            "server_settings": _SERVER_SETTINGS | {"statement_timeout": str(int(statement_timeout_s * 1000))},
            "command_timeout": statement_timeout_s + _SERVER_SILENT_S,
            "timeout": _CONNECT_TIMEOUT_S,
            "connection_class": _Connection,
        },
    )


def _sqlite_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(make_url(url).set(drivername="sqlite+aiosqlite"))

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver must not open transactions by itself: `BEGIN IMMEDIATE` takes the write lock at once.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def row_values(row: Any) -> Mapping[str, Any]:
    """A result row as a mapping from column name to value."""
    mapping: Mapping[str, Any] = row._mapping  # noqa: SLF001 - SQLAlchemy's documented accessor
    return mapping
