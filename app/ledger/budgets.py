"""Which budgets a job counts towards, and whether they have room for it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from app.domain.money import usd
from app.ledger.errors import InsufficientQuota


class Scope(StrEnum):
    """Whose budget it is."""

    KEY = "key"
    TEAM = "team"


class Term(StrEnum):
    """How long a period is; both begin at midnight UTC."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """A limit in force: what one owner may spend in one period."""

    scope: Scope
    owner_id: str
    team_id: str
    """The owner itself, or the team of the key."""
    term: Term
    starts_at: datetime
    ends_at: datetime
    """When the budget renews; the period's first moment after it."""
    limit_micros: int

    @property
    def period(self) -> str:
        """`2027-01-31` or `2027-01`."""
        return self.starts_at.strftime("%Y-%m-%d" if self.term is Term.DAY else "%Y-%m")

    @property
    def id(self) -> str:
        """The id of its row."""
        return f"{self.scope}:{self.owner_id}:{self.period}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One row of `budgets`."""

    id: str
    limit_micros: int
    opening_micros: int
    reserved_micros: int
    spent_micros: int

    @property
    def left_micros(self) -> int:
        """What may still be reserved; below zero once a limit was lowered or a cost went beyond its hold."""
        return self.limit_micros - self.reserved_micros - self.spent_micros


def budget_from(row: Mapping[str, Any]) -> Budget:
    """Read a row of `budgets`."""
    return Budget(**{name: row[name] for name in Budget.__slots__})


def ceilings(
    scope: Scope,
    owner_id: str,
    team_id: str,
    *,
    day_micros: int | None,
    month_micros: int | None,
    at: datetime,
) -> list[Ceiling]:
    """The limits of an owner that are in force at a moment; None is no limit."""
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight.replace(day=1)
    # Every month ends within 31 days, and none within 27.
    next_first = (first + timedelta(days=31)).replace(day=1)
    terms = (
        (Term.DAY, midnight, midnight + timedelta(days=1), day_micros),
        (Term.MONTH, first, next_first, month_micros),
    )
    return [
        Ceiling(
            scope=scope,
            owner_id=owner_id,
            team_id=team_id,
            term=term,
            starts_at=starts_at,
            ends_at=ends_at,
            limit_micros=limit_micros,
        )
        for term, starts_at, ends_at, limit_micros in terms
        if limit_micros is not None
    ]


def without_room(rows: Sequence[Budget], micros: int) -> Budget | None:
    """The first budget that cannot hold so much more; None when all can."""
    return next((row for row in rows if row.left_micros < micros), None)


def refusal(ceiling: Ceiling, row: Budget, micros: int) -> InsufficientQuota:
    """What the client is told when `row` has no room for a request that may cost `micros`."""
    whose = "team" if ceiling.scope is Scope.TEAM else "API key"
    return InsufficientQuota(
        f"The budget of this {whose} for the {ceiling.term} {ceiling.period} is {usd(ceiling.limit_micros)} USD, of "
        f"which {usd(max(row.left_micros, 0))} USD are left. This request may cost up to {usd(micros)} USD. The "
        f"budget renews at {ceiling.ends_at:%Y-%m-%dT%H:%M:%SZ}; an operator can raise it."
    )
