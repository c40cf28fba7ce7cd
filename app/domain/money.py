"""Money as an integer count of micro-dollars, rounded half-even once, where a price meets a quantity."""

from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from typing import Final

MICROS_PER_USD: Final = 1_000_000


class Certainty(StrEnum):
    """How sure the books are of an attempt's cost."""

    ACTUAL = "actual"
    """From the usage or the amount that the vendor reported."""
    ESTIMATED = "estimated"
    """From the price table, because the vendor reported no usage."""
    POSSIBLE = "possible"
    """The outcome is unknown; the whole hold is booked in case it was paid."""
    UNPRICED = "unpriced"
    """The route has no price: the cost is not known, and is not zero."""


def micros(usd: Decimal) -> int:
    """Round an exact amount in US dollars to micro-dollars, half to even."""
    return int((usd * MICROS_PER_USD).to_integral_value(ROUND_HALF_EVEN))


def usd(amount_micros: int) -> str:
    """Write micro-dollars as a plain decimal in US dollars: `7152` is `0.007152`, `0` is `0`."""
    return format((Decimal(amount_micros) / MICROS_PER_USD).normalize(), "f")
