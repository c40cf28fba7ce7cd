"""What a report on spend says. Pure; the query is the repository's.

An attempt counts on the day (UTC) on which it was opened, as on the vendor's bill. Four kinds of money are kept apart:
certain, of which a part may be estimated; possible, where nobody knows whether the vendor charged; pending, the holds
of calls that are under way; and calls whose price nobody knows, which are counted and never taken for free.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class By(StrEnum):
    """What spend is grouped by."""

    TEAM = "team"
    KEY = "key"
    MODEL = "model"
    UPSTREAM = "upstream"
    QUALITY = "quality"
    """As the vendor reports it, else as it was asked for."""
    DAY = "day"
    """In UTC."""


MAX_GROUPS: Final = 10_000
"""What one report lists at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span of time."""

    begins_at: datetime
    ends_at: datetime
    """The first moment after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What a group of attempts came to; micro-dollars."""

    attempts: int = 0
    pictures: int = 0
    """Those that were made."""
    certain_micros: int = 0
    """Reported by vendors, or from the price table."""
    estimated_micros: int = 0
    """The part of `certain_micros` that is from the price table."""
    possible_micros: int = 0
    pending_micros: int = 0
    unpriced_attempts: int = 0
    """Whose cost is in none of the sums."""
    saved_micros: int = 0
    """What the pictures would have cost more at the dearest route (`app/jobs/savings.py`)."""

    def __add__(self, other: "Spend") -> "Spend":
        names = self.__slots__
        return Spend(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def is_unpriced(self) -> bool:
        """Whether there is no attempt whose cost is known, so that the sums mean nothing."""
        return 0 < self.attempts == self.unpriced_attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One line of a report."""

    keys: Mapping[By, str]
    team_name: str | None
    """None where teams are not told apart, or this one is gone; likewise the key's."""
    key_name: str | None
    spend: Spend


def total(groups: Iterable[Group]) -> Spend:
    """All groups together."""
    return sum((group.spend for group in groups), Spend())
