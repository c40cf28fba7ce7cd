"""How attempts of the last hour become a route's latency and success rate."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.failures import FailureKind
from app.routing.measures import HALF_LIFE_S, Sample, measure

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def sample(took_s: float = 10.0, *, failure: FailureKind | None = None, ago_s: float = 0.0) -> Sample:
    return Sample(
        upstream="openai",
        model="gpt-image-2",
        failure=failure,
        took_s=took_s,
        ended_at=NOW - timedelta(seconds=ago_s),
    )


def test_nothing_is_known_of_a_route_that_was_not_asked() -> None:
    assert measure([], NOW) is None


def test_latency_is_the_median_of_what_succeeded() -> None:
    found = measure([sample(5), sample(90), sample(7), sample(1, failure=FailureKind.DOWN)], NOW)
    assert found is not None
    assert (found.latency_s, found.success_rate, found.attempts) == (7, 0.75, 4)


def test_without_a_success_there_is_no_latency() -> None:
    found = measure([sample(failure=FailureKind.TIMED_OUT)], NOW)
    assert found is not None
    assert (found.latency_s, found.success_rate) == (None, 0.0)


@pytest.mark.parametrize("kind", [FailureKind.INVALID, FailureKind.REFUSED, FailureKind.UNSUPPORTED])
def test_what_is_wrong_with_a_request_says_nothing_of_the_vendor(kind: FailureKind) -> None:
    assert measure([sample(failure=kind)], NOW) is None


def test_a_half_life_ago_counts_half() -> None:
    found = measure([sample(failure=FailureKind.DOWN, ago_s=HALF_LIFE_S), sample()], NOW)
    assert found is not None
    assert found.success_rate == pytest.approx(2 / 3)


def test_a_vendor_that_has_become_slow_is_seen_as_slow() -> None:
    quick = [sample(5, ago_s=3000) for _ in range(6)]
    slow = [sample(60) for _ in range(2)]
    found = measure([*quick, *slow], NOW)
    assert found is not None
    assert found.latency_s == 60
