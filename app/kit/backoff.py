"""Exponential back-off with full jitter."""

import random


def full_jitter(failures: int, *, base_s: float, cap_s: float) -> float:
    """Seconds to wait after the `failures`-th failure in a row: uniform between 0 and `base_s` doubled each time."""
    return random.uniform(0.0, min(cap_s, base_s * 2.0 ** max(failures - 1, 0)))
