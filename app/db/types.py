"""Column types and time expressions that mean the same on Postgres and on SQLite.

All decisions on time use the database's clock, so that a worker with a wrong clock harms nobody.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Float, FunctionElement, TypeDecorator, bindparam
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

JsonColumn = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime; `timestamptz` on Postgres, sortable text with microseconds on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes: nobody could say which zone they mean."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}; use an aware one")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Mark what SQLite returns as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class from_now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock as the statement began, shifted by a number of seconds (negative: into the past)."""

    type = Instant()
    inherit_cache = True
    name = "from_now"

    def __init__(self, seconds: float | Any = 0.0) -> None:
        shift = (
            bindparam(None, float(seconds), type_=Float()) if isinstance(seconds, int | float) else seconds
        )
        super().__init__(shift)


@compiles(from_now, "postgresql")
def _from_now_on_postgres(element: from_now, compiler: SQLCompiler, **kw: Any) -> str:
    # Not clock_timestamp(): an index cannot be searched for a value that may change from row to row.
    shift = compiler.process(element.clauses, **kw)
    return f"(statement_timestamp() + make_interval(secs => CAST({shift} AS double precision)))"


@compiles(from_now, "sqlite")
def _from_now_on_sqlite(element: from_now, compiler: SQLCompiler, **kw: Any) -> str:
    # Six digits of fraction, as SQLAlchemy writes them, so that text compares as time does.
    shift = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {shift}))"


def now() -> from_now:
    """The database's clock."""
    return from_now(0.0)


class texts_in(GenericFunction[str]):  # noqa: N801 - reads as the SQL function that it is
    """The strings of a JSON array, one row each: `texts_in(column).table_valued("value")`; none for NULL."""

    inherit_cache = True
    name = "texts_in"


@compiles(texts_in, "postgresql")
def _texts_in_on_postgres(element: texts_in, compiler: SQLCompiler, **kw: Any) -> str:
    return f"jsonb_array_elements_text({compiler.process(element.clauses, **kw)})"


@compiles(texts_in, "sqlite")
def _texts_in_on_sqlite(element: texts_in, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kw)})"
