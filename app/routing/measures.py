"""How fast and how reliable a route has been lately: pure arithmetic on its last attempts.

An attempt counts half of one that ended `HALF_LIFE_S` later, so that yesterday's vendor is not today's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.domain.failures import CLASS_OF, FailureClass, FailureKind

HALF_LIFE_S: Final = 900.0
WINDOW_S: Final = 3600.0
"""How far back attempts are looked at: what is older would weigh a sixteenth."""
SAMPLES: Final = 200
"""The most attempts of an upstream that are looked at, the newest: enough for a median, and a bounded query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One attempt that ended."""

    upstream: str
    model: str
    """The name that the upstream knows."""
    failure: FailureKind | None
    """None: it brought pictures."""
    took_s: float
    """From the intent to the end: sending, drawing, polling, fetching and storing."""
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How a route has fared of late."""

    latency_s: float | None
    """Weighted median of the attempts that brought pictures; None when none did."""
    success_rate: float
    """Weighted share, 0 to 1. Left out are requests that the vendor found fault with, or cannot do at all."""
    attempts: int
    """How many attempts this is drawn from."""


def measure(samples: Sequence[Sample], at: datetime) -> Measure | None:
    """Measure one route at this moment; None when nothing is known of it."""
    telling = [item for item in samples if _is_telling(item)]
    if not telling:
        return None
    weights = [0.5 ** (max((at - item.ended_at).total_seconds(), 0.0) / HALF_LIFE_S) for item in telling]
    pairs = list(zip(telling, weights, strict=True))
    good = sorted((item.took_s, weight) for item, weight in pairs if item.failure is None)
    return Measure(
        latency_s=_median(good),
        success_rate=sum(weight for _, weight in good) / sum(weights),
        attempts=len(telling),
    )


def _is_telling(sample: Sample) -> bool:
    kind = sample.failure
    if kind is None:
        return True
    return CLASS_OF[kind] is not FailureClass.FINAL and kind is not FailureKind.UNSUPPORTED


def _median(ordered: Sequence[tuple[float, float]]) -> float | None:
    """The value at which half of the weight is reached."""
    half = sum(weight for _, weight in ordered) / 2
    reached = 0.0
    for value, weight in ordered:
        reached += weight
        if reached >= half:
            return value
    return None
