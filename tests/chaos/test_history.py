"""The checker finds each kind of broken promise where one is planted, and none where all were kept."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.history import (
    VIOLATIONS,
    Bill,
    BookedAttempt,
    BookedBudget,
    BookedJob,
    Call,
    Collected,
    History,
    Order,
    judge,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def kept() -> History:
    """A history in which every promise was kept: a success by a second attempt, and one that nobody can be sure of."""
    history = History()
    for number, style in ((1, "keyed"), (2, "sdk")):
        order = Order(
            id=f"order-{number}", style="keyed" if style == "keyed" else "sdk", n=1, calls_that_may_be_paid=1
        )
        history.orders[order.id] = order
        history.jobs[f"job_{number}"] = BookedJob(
            id=f"job_{number}",
            order_id=order.id,
            status="succeeded" if number == 1 else "failed",
            error_code=None if number == 1 else "upstream_outcome_unknown",
            n=1,
            to_buy=0,
            has_lease=False,
            deadline_at=NOW,
            finished_at=NOW,
        )
    history.calls += [call("order-1", job_id="job_1", job_status="queued"), call("order-2", status=None)]
    history.attempts = {
        "att_1": BookedAttempt(id="att_1", job_id="job_1", state="unpaid", settled="released", cost_micros=0),
        "att_2": BookedAttempt(
            id="att_2", job_id="job_1", state="succeeded", settled="spent", cost_micros=6000
        ),
        "att_3": BookedAttempt(
            id="att_3", job_id="job_2", state="unknown", settled="spent", cost_micros=6000
        ),
    }
    history.bills = {
        "att_1": Bill(posts=1),
        "att_2": Bill(posts=1, charges=1, pictures=1, cost_micros=6000),
        "att_3": Bill(posts=1, charges=1, pictures=1, cost_micros=5999),
    }
    history.budgets = [
        BookedBudget(id="team:1:2026-11", limit_micros=12_000, reserved_micros=0, spent_micros=12_000)
    ]
    history.collected = {"job_1": Collected(result_sha256="a", marks=["att_2/0"])}
    return history


def call(
    order_id: str,
    *,
    status: int | None = 202,
    job_id: str | None = None,
    job_status: str | None = None,
    result_sha256: str | None = None,
) -> Call:
    """A client's call."""
    return Call(
        order_id=order_id,
        what="submit",
        started_s=0.0,
        ended_s=1.0,
        status=status,
        job_id=job_id,
        job_status=job_status,
        result_sha256=result_sha256,
    )


def test_kept_promises_are_found_to_be_kept() -> None:
    verdict = judge(kept())
    assert verdict.is_clean, verdict.violations
    assert (verdict.recovered, verdict.unattached) == (1, [])
    assert (verdict.spent_micros, verdict.billed_micros) == (12_000, 11_999)


def _job_vanishes(history: History) -> None:
    history.calls.append(call("order-1", job_id="job_9"))


def _job_hangs(history: History) -> None:
    history.jobs["job_1"].status = "in_progress"


def _job_is_late(history: History) -> None:
    history.jobs["job_2"].finished_at = NOW + timedelta(seconds=61)


def _job_is_bought_twice(history: History) -> None:
    history.attempts["att_1"].settled, history.attempts["att_1"].cost_micros = "spent", 6000
    history.bills["att_1"] = Bill(posts=1, charges=1, pictures=1, cost_micros=6000)


def _one_key_has_two_jobs(history: History) -> None:
    history.jobs["job_2"].order_id = "order-1"


def _one_key_is_told_of_two_jobs(history: History) -> None:
    history.calls.append(call("order-1", job_id="job_2"))


def _job_is_nobodys(history: History) -> None:
    history.jobs["job_2"].order_id = "order-8"


def _one_send_makes_two_jobs(history: History) -> None:
    history.orders["order-1"].style = "plain"
    history.jobs["job_2"].order_id = "order-1"


def _vendor_is_asked_without_an_intent(history: History) -> None:
    history.bills["att_9"] = Bill(posts=1)


def _success_is_made_up(history: History) -> None:
    history.bills["att_2"] = Bill(posts=1)


def _picture_is_anothers(history: History) -> None:
    history.collected["job_1"].marks = ["att_3/0"]


def _picture_is_there_twice(history: History) -> None:
    history.collected["job_1"].marks = ["att_2/0", "att_2/0"]


def _attempt_is_sent_twice(history: History) -> None:
    history.bills["att_1"].posts = 2


def _final_status_changes(history: History) -> None:
    history.calls.append(call("order-1", status=200, job_id="job_1", job_status="cancelled"))


def _result_changes(history: History) -> None:
    history.calls.append(call("order-1", status=200, job_id="job_1", result_sha256="b"))


def _picture_does_not_open(history: History) -> None:
    history.collected["job_1"] = Collected(result_sha256="a", marks=[], problem="truncated")


def _picture_is_not_there(history: History) -> None:
    del history.collected["job_1"]


def _paid_attempt_is_booked_as_free(history: History) -> None:
    history.attempts["att_3"].settled, history.attempts["att_3"].cost_micros = "released", 0


def _paid_attempt_is_booked_too_low(history: History) -> None:
    history.attempts["att_3"].cost_micros = 5000


def _attempt_stays_open(history: History) -> None:
    history.attempts["att_1"].state, history.attempts["att_1"].settled = "intent", None


def _budget_is_passed(history: History) -> None:
    history.budgets[0].limit_micros = 11_999


def _budget_stays_held(history: History) -> None:
    history.budgets[0].reserved_micros, history.budgets[0].spent_micros = 6000, 6000


def _hold_stays(history: History) -> None:
    history.jobs["job_2"].to_buy = 1


def _lease_stays(history: History) -> None:
    history.jobs["job_2"].has_lease = True


PLANTED: dict[Callable[[History], None], str] = {
    _job_vanishes: "lost",
    _job_hangs: "lost",
    _job_is_late: "overdue",
    _job_is_bought_twice: "duplicated",
    _one_key_has_two_jobs: "duplicated",
    _one_key_is_told_of_two_jobs: "duplicated",
    _job_is_nobodys: "unexpected",
    _one_send_makes_two_jobs: "unexpected",
    _vendor_is_asked_without_an_intent: "unexpected",
    _success_is_made_up: "unexpected",
    _picture_is_anothers: "unexpected",
    _picture_is_there_twice: "unexpected",
    _attempt_is_sent_twice: "sent twice",
    _final_status_changes: "changed",
    _result_changes: "two bodies",
    _picture_does_not_open: "undecodable",
    _picture_is_not_there: "undecodable",
    _paid_attempt_is_booked_as_free: "understated",
    _paid_attempt_is_booked_too_low: "understated",
    _attempt_stays_open: "holds left",
    _budget_is_passed: "over budget",
    _budget_stays_held: "holds left",
    _hold_stays: "holds left",
    _lease_stays: "holds left",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_a_broken_promise_is_found(plant: Callable[[History], None]) -> None:
    history = kept()
    plant(history)
    verdict = judge(history)
    assert not verdict.is_clean
    assert PLANTED[plant] in {kind for kind, offenders in verdict.violations.items() if offenders}


def test_every_kind_of_violation_has_been_planted() -> None:
    assert set(PLANTED.values()) == set(VIOLATIONS)


def test_an_sdk_retry_that_starts_a_second_job_is_counted_and_not_judged() -> None:
    history = kept()
    second = history.jobs["job_2"]
    history.jobs["job_3"] = BookedJob(
        id="job_3",
        order_id="order-2",
        status="failed",
        error_code="upstream_unavailable",
        n=1,
        to_buy=0,
        has_lease=False,
        deadline_at=second.deadline_at,
        finished_at=second.finished_at,
    )
    verdict = judge(history)
    assert verdict.is_clean
    assert len(verdict.unattached) == 1
