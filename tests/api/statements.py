"""Which statements a request had the database execute, and whether each asks only for what its caller's team has."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BinaryExpression, Column, Delete, Select, Table, Update, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql import operators, visitors
from starlette.types import ASGIApp, Receive, Scope, Send

from app.db.tables.api_keys import api_keys
from app.db.tables.attempts import attempts
from app.db.tables.budgets import budgets
from app.db.tables.registry import TABLES

OWNED: Final = frozenset(
    {attempts, *(table for table in TABLES if "team_id" in table.c)} - {api_keys, budgets}
)
"""The tables whose rows are some team's; but keys and budgets, which no client names."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A SELECT, UPDATE or DELETE on a table whose rows are some team's."""

    shape: str
    """Such as `select assets by id`."""
    owners: frozenset[object]
    """What a column with the id of a team, or of one of its keys, has to be equal to."""


class Statements:
    """Notes down what is executed on behalf of requests, not what workers and schedules do beside them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._is_request: ContextVar[bool] = ContextVar("is_request", default=False)
        self._noted: list[Statement] | None = None
        self._read: dict[Any, tuple[str, list[Any]]] = {}
        event.listen(engine.sync_engine, "before_cursor_execute", self._note)

    def noted(self, app: ASGIApp) -> ASGIApp:
        """The application, with its requests told apart from everything else."""

        async def marked(scope: Scope, receive: Receive, send: Send) -> None:
            # Tasks that the request starts take it with them.
            self._is_request.set(True)
            await app(scope, receive, send)

        return marked

    @contextmanager
    def watching(self) -> Iterator[list[Statement]]:
        """Lend the list of what is executed from now on."""
        noted: list[Statement] = []
        self._noted = noted
        try:
            yield noted
        finally:
            self._noted = None

    def _note(
        self, _connection: Any, _cursor: Any, _text: str, _values: Any, context: Any, _many: bool
    ) -> None:
        compiled = context.compiled
        if self._noted is None or not self._is_request.get() or compiled is None:
            return
        if isinstance(compiled.statement, Select | Update | Delete):
            shape, wanted = self._read.get(compiled) or self._read.setdefault(compiled, _read(compiled))
            if shape:
                values = context.compiled_parameters[0]
                self._noted.append(Statement(shape, frozenset(values.get(name) for name in wanted)))


def _read(compiled: Any) -> tuple[str, list[str]]:
    """The shape of a statement, and the names of the values that its owners have to be equal to."""
    parts = list(visitors.iterate(compiled.statement))
    tables = sorted(part.name for part in {part for part in parts if isinstance(part, Table)} & OWNED)
    if not tables:
        return "", []
    asked = [part for part in parts if isinstance(part, BinaryExpression)]
    columns = sorted({side.name for part in asked for side in (part.left, part.right) if _is_owned(side)})
    owners = [
        compiled.bind_names[part.right]
        for part in asked
        if part.operator is operators.eq
        and _is_owned(part.left)
        and part.left.name in {"team_id", "api_key_id"}
        and part.right in compiled.bind_names
    ]
    return f"{type(compiled.statement).__name__.lower()} {', '.join(tables)} by {', '.join(columns)}", owners


def _is_owned(side: Any) -> bool:
    table = getattr(side, "table", None) if isinstance(side, Column) else None
    return getattr(table, "element", table) in OWNED
