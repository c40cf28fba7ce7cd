"""Postgres: statements that SQLAlchemy has compiled, run by asyncpg itself, on connections of a small pool.

SQLAlchemy's own execution costs several times what the driver does, and a job makes some thirty statements. So its
Core writes them, its dialect compiles them once for each shape, and this module binds values and hands back its rows.
"""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast, overload
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import BindParameter, ClauseElement, Dialect, Executable, Result, TextClause
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.engine import IteratorResult, make_url
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql.compiler import Compiled, SQLCompiler
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import LRUCache

from app.db.connection import Parameters, T, is_built_once

DIALECT: Final[Dialect] = asyncpg_dialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it untyped
Observer: TypeAlias = Callable[[str, Sequence[Any]], None]
"""Called with each statement and its values before it is sent."""

_SHAPES: Final = 1000
"""How many differently built statements are kept compiled, and prepared on each connection."""
_KEPT_LENGTH: Final = 64
"""How many values the lists of a statement have at most that is kept with them written out."""
_RECYCLED_AFTER_S: Final = 1800.0
_PARTING_S: Final = 0.5
_BREAKS: Final = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""After these nobody knows what is under way on a connection."""

_ABOUT_VALUES: Final = "22"
"""The class of SQLSTATE whose messages quote values."""

_compiled: Final[LRUCache[Any, Any]] = LRUCache(_SHAPES)
_plans_of_built: Final[dict[int, "_Plan"]] = {}
_plans: Final[WeakKeyDictionary[Compiled, "_Plan"]] = WeakKeyDictionary()


class UnusableValue(Exception):
    """The driver cannot send a value that a statement was given; which of them, and not the value."""


class PostgresConnection:
    """One connection, as repositories see it."""

    dialect = DIALECT

    def __init__(self, driver: asyncpg.Connection, observers: Iterable[Observer] = ()) -> None:
        self.driver = driver
        """The driver's own connection."""
        self._observers = observers

    @overload
    async def execute(
        self, statement: TypedReturnsRows[T], parameters: Parameters | None = None, /
    ) -> Result[T]: ...

    @overload
    async def execute(
        self, statement: Executable, parameters: Parameters | None = None, /
    ) -> Result[Any]: ...

    async def execute(self, statement: Executable, parameters: Parameters | None = None, /) -> Result[Any]:
        """Run a statement of SQLAlchemy's Core; with several sets of parameters, once for each and without rows.

        Raises:
            PostgresError: the database refuses it.
            UnusableValue: a value is of the wrong kind.
            OSError: the connection is gone.
            TimeoutError: the database did not answer in time.
        """
        if isinstance(parameters, Sequence):
            return await self._execute_many(statement, parameters)
        plan, values = _bound(statement, parameters or {})
        sql, given = plan.positional(values)
        self._tell(sql, given)
        with self._translated():
            rows = await self.driver.fetch(sql, *given)
        return IteratorResult(plan.described(rows), iter(rows))

    async def _execute_many(
        self, statement: Executable, parameters: Sequence[Mapping[str, Any]]
    ) -> Result[Any]:
        bound = [_bound(statement, each) for each in parameters]
        sql = bound[0][0].shape.sql
        rows = [plan.positional(values)[1] for plan, values in bound]
        for row in rows:
            self._tell(sql, row)
        with self._translated():
            await self.driver.executemany(sql, rows)
        return IteratorResult(_NOTHING, iter(()))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Name what broke, in words that hold no value: what nobody expected is logged."""
        try:
            with _while_connected(self.driver):
                yield
        except asyncpg.InterfaceError as exc:
            if isinstance(exc, ValueError):  # the driver's own DataError, which quotes the value
                raise UnusableValue(str(exc).partition(":")[0]) from None
            raise
        except asyncpg.PostgresError as exc:
            # The rows and keys that it could not take stand here.
            exc.detail = None
            if (exc.sqlstate or "").startswith(_ABOUT_VALUES):
                exc.args = tuple(str(part).partition(":")[0] for part in exc.args)
            raise

    def _tell(self, sql: str, values: Sequence[Any]) -> None:
        for observer in self._observers:
            observer(sql, values)


@contextlib.contextmanager
def _while_connected(driver: asyncpg.Connection) -> Iterator[None]:
    """Tell a connection that is gone from a mistake of ours."""
    try:
        yield
    except asyncpg.InternalClientError as exc:
        # A server that shuts down says so between two statements, where the driver expects nothing; until the end of
        # the connection arrives as well, it is out of step.
        raise ConnectionError("the connection to the database is out of step") from exc
    except asyncpg.InterfaceError as exc:
        if driver.is_closed():
            raise ConnectionError("the connection to the database is gone") from exc
        raise


class Pool:
    """Connections that are open and not in use. Whoever takes one gives it back or leaves it."""

    def __init__(self, url: str, *, settings: Mapping[str, str], timeout_s: float, connect_s: float) -> None:
        """Nothing is opened yet.

        Args:
            url: `postgresql://…`; what stands behind `?` goes to the driver.
            settings: what the server is told of each connection.
            timeout_s: after which a server that has not answered counts as hanging.
            connect_s: the same while connecting.
        """
        _, self._options = DIALECT.create_connect_args(make_url(url))
        self._settings = dict(settings)
        self._timeout_s = timeout_s
        self._connect_s = connect_s
        self._idle: list[tuple[asyncpg.Connection, float]] = []
        self._opened_at: dict[asyncpg.Connection, float] = {}

    async def take(self) -> asyncpg.Connection:
        """Lend a connection, a new one when none is idle.

        Raises:
            PostgresError: the server does not let us in.
            OSError: it is not there.
            TimeoutError: it did not answer in time.
        """
        while self._idle:
            driver, opened_at = self._idle.pop()
            if driver.is_closed():
                continue
            if time.monotonic() - opened_at > _RECYCLED_AFTER_S:
                driver.terminate()
                continue
            self._opened_at[driver] = opened_at
            return driver
        driver = await asyncpg.connect(
            **self._options,
            server_settings=self._settings,
            command_timeout=self._timeout_s,
            timeout=self._connect_s,
            statement_cache_size=_SHAPES,
        )
        for kind, encode, decode in _JSON_CODECS:
            await driver.set_type_codec(
                kind, schema="pg_catalog", format="binary", encoder=encode, decoder=decode
            )
        self._opened_at[driver] = time.monotonic()
        return driver

    def give_back(self, driver: asyncpg.Connection) -> None:
        """Take a connection back on which nothing is under way."""
        self._idle.append((driver, self._opened_at.pop(driver)))

    def leave(self, driver: asyncpg.Connection) -> None:
        """Hang up, whatever is under way; the server takes back what was not committed."""
        self._opened_at.pop(driver, None)
        driver.terminate()

    async def close(self) -> None:
        """Say goodbye on the idle connections where the server listens, and leave the others."""
        while self._idle:
            driver, _ = self._idle.pop()
            with contextlib.suppress(TimeoutError, OSError, asyncpg.PostgresError):
                await driver.close(timeout=_PARTING_S)
        for driver in list(self._opened_at):
            self.leave(driver)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection, and leave it when its user ends in a way that may have left something under way."""
        driver = await self.take()
        try:
            yield driver
        except _BREAKS:
            self.leave(driver)
            raise
        except Exception:
            self._keep_if_fit(driver)
            raise
        except BaseException:
            # Cancelled, perhaps amid a statement.
            self.leave(driver)
            raise
        self._keep_if_fit(driver)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection for a transaction, committed at the end and taken back when its user fails."""
        async with self.lent() as driver:
            with _while_connected(driver):
                await driver.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            try:
                yield driver
            except _BREAKS:
                raise
            except Exception:
                with contextlib.suppress(*_BREAKS, asyncpg.PostgresError):
                    await driver.execute("ROLLBACK")
                raise
            with _while_connected(driver):
                await driver.execute("COMMIT")

    def _keep_if_fit(self, driver: asyncpg.Connection) -> None:
        if driver.is_closed() or driver.is_in_transaction():
            self.leave(driver)
        else:
            self.give_back(driver)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """The SQL of a statement, for lists of some lengths."""

    sql: str
    names: Sequence[str]
    """The parameters in their order."""
    encoders: Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A statement as it is sent, for every set of values."""

    compiled: SQLCompiler
    shape: "_Shape"
    lists: Sequence[str]
    """The parameters of an `IN`, which has as many as there are values."""
    literals: Sequence[str]
    """Those that are written out, such as a limit."""
    expanded: dict[Sequence[Any], "_Shape"]
    """By the lengths of the lists and the values of the literals, as far as they are kept."""
    defaults: Mapping[str, Any]
    """What the tables say of columns that a statement leaves out."""
    fixed: Mapping[str, Any]
    """The values that stand in the statement itself."""
    metadata: SimpleResultMetaData | None
    """What its rows are called; None for text, which does not say."""

    def positional(self, values: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
        """The SQL, and the values in its order."""
        shape = self.shape
        if self.lists or self.literals:
            shape, values = self._expanded(values)
        if not shape.encoders:
            return shape.sql, [values[name] for name in shape.names]
        return shape.sql, [
            values[name] if (encode := shape.encoders.get(name)) is None else encode(values[name])
            for name in shape.names
        ]

    def _expanded(self, values: Mapping[str, Any]) -> tuple["_Shape", Mapping[str, Any]]:
        """The statement for lists of these lengths, and its values, for which SQLAlchemy's own way takes long."""
        key = tuple(len(values[name]) for name in self.lists), tuple(values[name] for name in self.literals)
        shape = self.expanded.get(key)
        if shape is not None:
            parts = {
                f"{name}_{place}": value
                for name in self.lists
                for place, value in enumerate(values[name], start=1)
            }
            return shape, {**values, **parts}
        state = self.compiled.construct_expanded_state(values)
        shape = _Shape(
            sql=state.statement,
            names=tuple(state.positiontup or ()),
            encoders={**self.shape.encoders, **state.processors},
        )
        is_plain = not any(isinstance(value, tuple) for name in self.lists for value in values[name])
        if is_plain and sum(key[0]) <= _KEPT_LENGTH and len(self.expanded) < _SHAPES:
            self.expanded[key] = shape
        return shape, state.parameters

    def described(self, rows: Sequence[asyncpg.Record]) -> SimpleResultMetaData:
        """What the columns of these rows are called."""
        if self.metadata is not None:
            return self.metadata
        return SimpleResultMetaData(list(rows[0].keys())) if rows else _NOTHING


def _bound(statement: Executable, parameters: Mapping[str, Any]) -> tuple[_Plan, Mapping[str, Any]]:
    """How a statement is sent, and its values by their names."""
    if is_built_once(statement):
        plan = _plans_of_built.get(id(statement))
        if plan is None:
            compiled = cast("ClauseElement", statement).compile(
                dialect=DIALECT, column_keys=sorted(parameters)
            )
            plan = _plans_of_built[id(statement)] = _planned(cast("SQLCompiler", compiled), statement)
        return plan, {**plan.fixed, **parameters}
    compiled, extracted, _ = cast("ClauseElement", statement)._compile_w_cache(  # noqa: SLF001 - as SQLAlchemy's engine
        DIALECT, compiled_cache=_compiled, column_keys=sorted(parameters)
    )
    plan = _plans.get(compiled)
    if plan is None:
        plan = _plans[compiled] = _planned(cast("SQLCompiler", compiled), statement)
    values = compiled.construct_params(parameters, extracted_parameters=extracted)
    return plan, {**(values or {}), **plan.defaults}


def _planned(compiled: SQLCompiler, statement: Executable) -> _Plan:
    encoders = {}
    for parameter, name in compiled.bind_names.items():
        encode = _implemented(parameter.type).bind_processor(DIALECT)
        if encode is not None:
            encoders[name] = encode
    columns = compiled._result_columns  # noqa: SLF001 - the names and types that it has just written
    decoders = [_implemented(column.type).result_processor(DIALECT, None) for column in columns]
    metadata = SimpleResultMetaData(
        [column.keyname for column in columns], _processors=decoders if any(decoders) else None
    )
    defaults = {column.key: cast("Any", column.default).arg for column in compiled.insert_prefetch}
    own = {
        name: parameter.effective_value
        for parameter, name in compiled.bind_names.items()
        if not parameter.required
    }
    return _Plan(
        compiled=compiled,
        shape=_Shape(sql=str(compiled), names=tuple(compiled.positiontup or ()), encoders=encoders),
        lists=_names(compiled, compiled.post_compile_params - compiled.literal_execute_params),
        literals=_names(compiled, compiled.literal_execute_params),
        expanded={},
        defaults=defaults,
        fixed=own | defaults,
        metadata=None if isinstance(statement, TextClause) else metadata,
    )


def _names(compiled: SQLCompiler, parameters: Iterable[BindParameter[Any]]) -> Sequence[str]:
    return sorted(compiled.bind_names[parameter] for parameter in parameters)


def _implemented(of: TypeEngine[Any]) -> TypeEngine[Any]:
    return of.dialect_impl(DIALECT)


_NOTHING: Final = SimpleResultMetaData(["nothing"])
# The server sends JSONB with a byte for the format before it.
_JSON_CODECS: Final = (
    ("json", str.encode, json.loads),
    ("jsonb", lambda text: b"\x01" + text.encode(), lambda sent: json.loads(sent[1:])),
)
