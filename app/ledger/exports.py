"""A vendor's usage export: what its lines say, and what each means for the books. Pure.

A line names an attempt by its id, which vendors were given as Idempotency-Key, or an order by its ticket, and the
amount that was charged for it in US dollars.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

from app.domain.money import Certainty, micros
from app.kit.json import Json
from app.ledger.errors import ExportUnreadable

MAX_LINES: Final = 10_000
"""What one import takes; a longer export is imported in parts."""
_MOST_USD: Final = 1_000_000
_COLUMNS: Final = ("attempt_id", "ticket", "amount_usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One line of an export."""

    attempt_id: str | None
    ticket: str | None
    amount_micros: int

    @property
    def name(self) -> str:
        """What the line calls its attempt."""
        return self.attempt_id or self.ticket or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What is booked on an attempt."""

    id: str
    job_id: str
    ticket: str | None
    settled: str | None
    cost_micros: int
    certainty: str | None


class Finding(StrEnum):
    """What a line means for the books."""

    CORRECTED = "corrected"
    """The cost was not certain, and is the vendor's from now on."""
    UNCHANGED = "unchanged"
    """It is booked like this already."""
    CONTRADICTED = "contradicted"
    """Another amount is booked as certain, or the call as not paid for: somebody has to look."""
    OPEN = "open"
    """The call is still under way. Import the line again later."""
    UNKNOWN = "unknown"
    """There is no such attempt."""


def judge(booked: Booked | None, amount_micros: int) -> Finding:
    """Say what a charge means, given what is booked."""
    if booked is None:
        return Finding.UNKNOWN
    if booked.settled is None:
        return Finding.OPEN
    if booked.settled == "released" or booked.certainty == Certainty.ACTUAL.value:
        return Finding.UNCHANGED if booked.cost_micros == amount_micros else Finding.CONTRADICTED
    return Finding.CORRECTED


def read_csv(text: str) -> list[Charge]:
    """Read an export with a heading of `attempt_id` or `ticket`, or both, and `amount_usd`; other columns are ignored.

    Raises:
        ExportUnreadable: a line says nothing, or the same as another; the message names it.
    """
    lines = csv.DictReader(text.removeprefix("\ufeff").splitlines())
    if "amount_usd" not in (lines.fieldnames or ()):
        raise ExportUnreadable(
            f"The export has no column 'amount_usd'. Its heading needs: {', '.join(_COLUMNS)}.", param="body"
        )
    return _charges(lines, first=2)


def read_json(charges: Json) -> list[Charge]:
    """Read a list of objects with `attempt_id` or `ticket`, and `amount_usd`.

    Raises:
        ExportUnreadable: an item says nothing, or the same as another; the message names it.
    """
    if not isinstance(charges, list) or not all(isinstance(item, Mapping) for item in charges):
        raise ExportUnreadable("Invalid 'charges': expected a list of objects.", param="charges")
    return _charges((item for item in charges if isinstance(item, Mapping)), first=1)


def _charges(lines: Iterable[Mapping[str, Any]], *, first: int) -> list[Charge]:
    charges: list[Charge] = []
    names: set[str] = set()
    for number, line in enumerate(lines, start=first):
        if len(charges) == MAX_LINES:
            raise ExportUnreadable(
                f"The export has more than {MAX_LINES} lines. Import it in parts.", param="body"
            )
        charge = _charge(line, number)
        if charge.name in names:
            message = f"Line {number} names {charge.name!r} again. Add its amounts up, or drop one of them."
            raise ExportUnreadable(message, param="body")
        names.add(charge.name)
        charges.append(charge)
    return charges


def _charge(line: Mapping[str, Any], number: int) -> Charge:
    attempt_id, ticket = (_text(line.get(name)) for name in ("attempt_id", "ticket"))
    if attempt_id is None and ticket is None:
        raise ExportUnreadable(f"Line {number} names neither an attempt nor a ticket.", param="body")
    given = line.get("amount_usd")
    try:
        # The shortest text that means a float is what was written.
        amount = Decimal(str(given).strip())
    except InvalidOperation:
        amount = Decimal(-1)
    if isinstance(given, bool) or not amount.is_finite() or not 0 <= amount <= _MOST_USD:
        message = (
            f"Line {number}: expected 'amount_usd' in US dollars, 0 or more, but got {str(given)[:40]!r}."
        )
        raise ExportUnreadable(message, param="body")
    return Charge(attempt_id=attempt_id, ticket=ticket, amount_micros=micros(amount))


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text or None


def matched(charges: Sequence[Charge], found: Iterable[Booked]) -> list[tuple[Charge, Booked | None]]:
    """Each charge with what is booked on its attempt; an attempt's id counts before a ticket."""
    by_id: dict[str, Booked] = {}
    by_ticket: dict[str, Booked] = {}
    for booked in found:
        by_id[booked.id] = booked
        if booked.ticket is not None:
            by_ticket[booked.ticket] = booked
    return [
        (
            charge,
            by_id.get(charge.attempt_id) if charge.attempt_id else by_ticket.get(charge.ticket or ""),
        )
        for charge in charges
    ]
