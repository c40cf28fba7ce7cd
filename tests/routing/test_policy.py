"""A row for every kind of failure, checked one by one."""

import pytest

from app.catalog.entries import OnUnknownOutcome
from app.domain.failures import CLASS_OF, FailureClass, FailureKind, UpstreamFailure
from app.routing.policy import POLICY, HealthEffect, TryAnother, client_error, may_try_another

FAIL, FAILOVER = OnUnknownOutcome.FAIL, OnUnknownOutcome.FAILOVER

# kind, class, try another, health, alerts, status, code, x-should-retry: house style 6 and reliability 2.1.
ROWS = [
    ("invalid", "final", "no", "none", False, 400, "invalid_value", False),
    ("refused", "final", "no", "none", False, 400, "moderation_blocked", False),
    ("unsupported", "safe", "yes", "pair_set_aside", False, 400, "unsupported_parameter", False),
    ("credentials", "safe", "yes", "out", True, 502, "all_upstreams_failed", True),
    ("funds", "safe", "yes", "out", True, 502, "all_upstreams_failed", True),
    ("busy", "safe", "yes", "cools_down", False, 502, "all_upstreams_failed", True),
    ("down", "safe", "yes", "counts", False, 502, "all_upstreams_failed", True),
    ("timed_out", "ambiguous", "on_unknown_outcome", "counts", False, 502, "upstream_outcome_unknown", False),
    ("garbled", "ambiguous", "on_unknown_outcome", "counts", True, 502, "upstream_outcome_unknown", False),
]


def test_every_kind_has_a_row_here_and_in_the_policy() -> None:
    assert [row[0] for row in ROWS] == [kind.value for kind in FailureKind]
    assert set(POLICY) == set(FailureKind)


@pytest.mark.parametrize("kind, cls, another, health, alerts, status, code, retry", ROWS)
def test_a_kind_has_exactly_these_consequences(
    kind: str, cls: str, another: str, health: str, alerts: bool, status: int, code: str, retry: bool
) -> None:
    row = POLICY[FailureKind(kind)]
    assert CLASS_OF[FailureKind(kind)] is FailureClass(cls)
    assert row.try_another is TryAnother(another)
    assert row.health is HealthEffect(health)
    assert row.alerts is alerts
    error = client_error(UpstreamFailure(FailureKind(kind), "said so", param="size"), job_id="job_1")
    assert (error.status, error.code, error.should_retry, error.job_id) == (status, code, retry, "job_1")
    assert error.param == ("size" if status == 400 else None)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_who_may_be_asked_next_follows_from_the_class(kind: FailureKind) -> None:
    first = {policy: may_try_another(kind, policy, unknown_outcomes=1) for policy in OnUnknownOutcome}
    second = {policy: may_try_another(kind, policy, unknown_outcomes=2) for policy in OnUnknownOutcome}
    match CLASS_OF[kind]:
        case FailureClass.FINAL:
            assert first == second == {FAIL: False, FAILOVER: False}
        case FailureClass.SAFE:
            assert first == second == {FAIL: True, FAILOVER: True}
        case FailureClass.AMBIGUOUS:
            assert first == {FAIL: False, FAILOVER: True}
            assert second == {FAIL: False, FAILOVER: False}


def test_a_model_that_no_vendor_has_is_not_the_clients_fault() -> None:
    error = client_error(UpstreamFailure(FailureKind.UNSUPPORTED, "no such model"))
    assert (error.status, error.code) == (502, "all_upstreams_failed")


@pytest.mark.parametrize("asked, told", [(7.0, 7.0), (None, 5.0), (900.0, 60.0)])
def test_a_client_is_told_when_to_come_back_within_a_minute(asked: float | None, told: float) -> None:
    failure = UpstreamFailure(FailureKind.BUSY, "rate limit", retry_after_s=asked)
    assert client_error(failure).retry_after_s == told


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_client_never_reads_the_attempt_log(kind: FailureKind) -> None:
    assert "internal-detail" not in client_error(UpstreamFailure(kind, "internal-detail")).message


@pytest.mark.parametrize(
    "kind", [kind for kind in FailureKind if POLICY[kind].try_another is not TryAnother.YES]
)
def test_what_may_have_been_paid_for_is_not_to_be_sent_again_blindly(kind: FailureKind) -> None:
    error = client_error(UpstreamFailure(kind, "", retry_after_s=3))
    assert not error.should_retry
    assert error.retry_after_s is None
