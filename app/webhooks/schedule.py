"""When a delivery is tried again, and for how long it is remembered. Pure."""

import random
from datetime import datetime, timedelta
from typing import Final

DELAYS_S: Final = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 28800.0, 28800.0)
"""Before each try, counted from the one before: 23 h 35 min in all (reliability 4.9)."""
SPAN_S: Final = 86400.0
"""From the first try to the last one at the latest, and the longest that a receiver may ask us to wait."""
KEPT_S: Final = 30 * 86400.0
"""How long a delivery can be looked at and sent again after it ended; its event goes with the last one."""
_JITTER: Final = 0.1
"""Keeps the retries of many deliveries from arriving together."""


def next_try(
    at: datetime, *, tries: int, ends_at: datetime, retry_after_s: float | None, jitter: random.Random
) -> datetime | None:
    """When to try again after the failure of try number `tries` at `at`; None to give up.

    `retry_after_s`: what the receiver asked for; it may put the last try later than `ends_at`.
    """
    if at >= ends_at or tries >= len(DELAYS_S):
        return None
    delay_s = DELAYS_S[tries] * jitter.uniform(1 - _JITTER, 1 + _JITTER)
    planned = min(at + timedelta(seconds=delay_s), ends_at)
    if retry_after_s is None:
        return planned
    return max(planned, at + timedelta(seconds=min(retry_after_s, SPAN_S)))
