"""When a delivery is tried again, by the table and what the receiver asks for."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.schedule import DELAYS_S, SPAN_S, next_try

START = datetime(2026, 11, 21, tzinfo=UTC)
END = START + timedelta(seconds=SPAN_S)


def _again(after_s: float, tries: int, retry_after_s: float | None = None, seed: int = 0) -> float | None:
    """Seconds from the failure to the next try."""
    at = START + timedelta(seconds=after_s)
    jitter = random.Random(seed)
    found = next_try(at, tries=tries, ends_at=END, retry_after_s=retry_after_s, jitter=jitter)
    return None if found is None else (found - at).total_seconds()


def test_the_delays_are_those_that_are_promised() -> None:
    assert DELAYS_S == (0, 5, 300, 1800, 7200, 18000, 28800, 28800)


@given(tries=st.integers(1, 7), seed=st.integers())
def test_each_delay_has_a_tenth_of_jitter(tries: int, seed: int) -> None:
    waited = _again(0, tries, seed=seed)
    assert waited is not None
    assert DELAYS_S[tries] * 0.9 <= waited <= DELAYS_S[tries] * 1.1


@given(seed=st.integers())
def test_all_tries_are_within_a_day(seed: int) -> None:
    jitter, at = random.Random(seed), START
    for tries in range(1, len(DELAYS_S)):
        found = next_try(at, tries=tries, ends_at=END, retry_after_s=None, jitter=jitter)
        assert found is not None
        at = found
    assert at <= END
    assert next_try(at, tries=len(DELAYS_S), ends_at=END, retry_after_s=None, jitter=jitter) is None


def test_after_a_day_nothing_is_tried_again() -> None:
    assert _again(SPAN_S, 3, retry_after_s=60) is None


def test_a_receiver_may_ask_for_more_time_but_not_for_more_than_a_day() -> None:
    assert _again(0, 1, retry_after_s=3600) == 3600
    assert _again(0, 1, retry_after_s=1e12) == SPAN_S
    shortened = _again(0, 2, retry_after_s=1)
    assert shortened is not None
    assert shortened >= 270
