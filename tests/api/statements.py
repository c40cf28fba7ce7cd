"""Which statements a request had the database execute, and whether each asks only for what its caller's team has."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from app.db.engine import Database
from app.db.tables.api_keys import api_keys
from app.db.tables.attempts import attempts
from app.db.tables.budgets import budgets
from app.db.tables.registry import TABLES

OWNED: Final = frozenset(
    table.name
    for table in {attempts, *(table for table in TABLES if "team_id" in table.c)} - {api_keys, budgets}
)
"""The tables whose rows are some team's; but keys and budgets, which no client names."""
_TABLE: Final = re.compile(r"\b(?:FROM|JOIN|UPDATE) (\w+)")
_CONDITION: Final = re.compile(r"\b\w+\.(\w+) (?:=|<|>|!=|IN|IS|NOT IN)")
_OWNER: Final = re.compile(r"\b\w+\.(?:team_id|api_key_id) = \$([0-9]+)")


@dataclass(frozen=True, slots=True)
class Statement:
    """A SELECT, UPDATE or DELETE on a table whose rows are some team's."""

    shape: str
    """Such as `select assets by id`."""
    owners: frozenset[object]
    """What a column with the id of a team, or of one of its keys, has to be equal to."""


class Statements:
    """Notes down what is executed on behalf of requests, not what workers and schedules do beside them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_request: ContextVar[bool] = ContextVar("is_request", default=False)

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

        def note(sql: str, values: Sequence[Any]) -> None:
            statement = _read(sql, values) if self._is_request.get() else None
            if statement is not None:
                noted.append(statement)

        with self._database.observed(note):
            yield noted


def _read(sql: str, values: Sequence[Any]) -> Statement | None:
    if sql.startswith("INSERT"):
        return None
    tables = sorted(set(_TABLE.findall(sql)) & OWNED)
    if not tables:
        return None
    kind = (
        "update" if re.search(r"\bUPDATE \w+ SET\b", sql) else "delete" if "DELETE FROM" in sql else "select"
    )
    conditions = sql[sql.find("WHERE") :]
    columns = sorted(set(_CONDITION.findall(conditions)))
    owners = frozenset(values[int(place) - 1] for place in _OWNER.findall(conditions))
    return Statement(f"{kind} {', '.join(tables)} by {', '.join(columns)}", owners)
