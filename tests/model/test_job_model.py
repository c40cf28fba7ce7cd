"""The lifecycle of a job keeps its promises in every reachable state, and each known mistake in it is caught.

Change the model before the product: what the lifecycle may do is tried here first.
"""

import pytest

from tests.model.explorer import STUCK, explore
from tests.model.job_model import JobModel, Setting
from tests.model.rules import Mutant, Rule

ONE_PICTURE = Setting(pictures=1)
ONE_TICKET = Setting(pictures=1, is_async=True)
SYNC = Setting()
SYNC_FAILOVER = Setting(spare=1)
ASYNC = Setting(is_async=True)
# With one picture a call the limit on the bill is exact, and the state space smaller.
ASYNC_FAILOVER = Setting(is_async=True, spare=1, pictures_per_call=1)

SETTINGS = [
    pytest.param(ASYNC_FAILOVER, id="tickets, failover"),
    pytest.param(SYNC_FAILOVER, id="pictures at once, failover"),
    pytest.param(ASYNC, id="tickets"),
    pytest.param(SYNC, id="pictures at once"),
    pytest.param(ONE_PICTURE, id="one picture"),
    pytest.param(ONE_TICKET._replace(spare=1, claims_max=3), id="one ticket, failover, three claims"),
]

CAUGHT: list[tuple[Mutant, Setting, str]] = [
    (Mutant.SEND_BEFORE_INTENT, ONE_PICTURE, Rule.SENT_WITHOUT_ROW),
    (Mutant.SEND_BEFORE_INTENT, ONE_PICTURE, Rule.BILLED_TOO_OFTEN),
    (Mutant.RESEND_DANGLING_INTENT, ONE_PICTURE, Rule.SENT_TWICE),
    (Mutant.RESEND_DANGLING_INTENT, ONE_PICTURE, Rule.BILLED_TOO_OFTEN),
    (Mutant.DANGLING_INTENT_IS_UNPAID, ONE_PICTURE, Rule.BILLED_TOO_OFTEN),
    (Mutant.TIMEOUT_IS_REFUSAL, ONE_PICTURE, Rule.BILLED_TOO_OFTEN),
    (Mutant.COUNTER_NOT_LOWERED, ONE_PICTURE, Rule.BILLED_TOO_OFTEN),
    (Mutant.COUNTER_RAISED_WITHOUT_SPARE, ONE_PICTURE, Rule.BILLED_TOO_OFTEN),
    (Mutant.COUNTER_RAISED_BY_EACH_POLLER, ASYNC, Rule.BILLED_TOO_OFTEN),
    (Mutant.COUNTER_RAISED_BY_SENDER_AND_SWEEPER, SYNC_FAILOVER, Rule.BOUGHT_WHAT_IS_THERE),
    (Mutant.COUNTER_RAISED_WITHOUT_LIMIT, SYNC_FAILOVER, Rule.BOUGHT_WHAT_IS_THERE),
    (Mutant.LATE_SUCCESS_LEAVES_COUNTER, SYNC_FAILOVER, Rule.BOUGHT_WHAT_IS_THERE),
    (Mutant.REFUSAL_DOES_NOT_LAST, SYNC, Rule.BOUGHT_AFTER_REFUSAL),
    (Mutant.CLOCK_NOT_CHECKED_BEFORE_SEND, ONE_PICTURE, Rule.SENT_AFTER_WRITTEN_OFF),
    (Mutant.WRITTEN_OFF_BEFORE_DUE, ONE_PICTURE, Rule.SENT_AFTER_WRITTEN_OFF),
    (Mutant.POISON_BEFORE_DUE, ONE_PICTURE, Rule.SENT_AFTER_WRITTEN_OFF),
    (Mutant.FINAL_STATUS_OVERWRITTEN, ONE_PICTURE, Rule.FINAL_STATUS_CHANGED),
    (Mutant.FINAL_STATUS_OVERWRITTEN, ONE_PICTURE, Rule.CANCELLED_SUCCEEDED),
    (Mutant.UNFENCED_FAILURE, SYNC, Rule.MOVED_BY_STRANGER),
    (Mutant.UNFENCED_INTENT, SYNC, Rule.MOVED_BY_STRANGER),
    (Mutant.NO_TOKEN_BUMP, SYNC, Rule.MOVED_BY_STRANGER),
    (Mutant.TOKEN_STARTS_AGAIN, ONE_PICTURE, Rule.FENCE_WENT_BACK),
    (Mutant.FENCED_SUCCESS, ONE_PICTURE, Rule.PICTURES_DROPPED),
    (Mutant.FENCED_TICKET, ASYNC, Rule.TICKET_ABANDONED),
    (Mutant.TICKET_FORGOTTEN, ASYNC, Rule.TICKET_ABANDONED),
    (Mutant.TICKET_DROPPED_AT_DEADLINE, ASYNC, Rule.TICKET_ABANDONED),
    (Mutant.SETTLED_TWICE, ONE_PICTURE, Rule.HOLDS_WRONG),
    (Mutant.CLOSE_RELEASES_OPEN_HOLDS, ONE_PICTURE, Rule.BOOKS_BEHIND_BILL),
    (Mutant.CLOSE_KEEPS_UNUSED_HOLD, ONE_PICTURE, STUCK),
    (Mutant.CANCEL_KEEPS_UNUSED_HOLD, ONE_PICTURE, Rule.HOLDS_WRONG),
    (Mutant.CANCEL_KEEPS_UNUSED_HOLD, ONE_PICTURE, STUCK),
    (Mutant.REFUSAL_KEEPS_HOLD, ONE_PICTURE, Rule.HOLDS_WRONG),
    (Mutant.FAILOVER_ASKS_FOR_NO_ROOM, ONE_PICTURE._replace(spare=1), Rule.BUDGET_OVERDRAWN),
    (Mutant.EXPIRED_WITH_PICTURES, SYNC, Rule.PAID_PICTURES_WITHHELD),
    (Mutant.EXPIRED_WITH_CALLS_BEHIND_IT, ONE_PICTURE, Rule.EXPIRED_AFTER_ASKING),
    (Mutant.SUCCEEDED_EMPTY_HANDED, ONE_PICTURE, Rule.SUCCEEDED_EMPTY),
    (Mutant.REFUSAL_FAILS_PARTLY_FILLED_JOB, SYNC, Rule.PAID_PICTURES_WITHHELD),
    (Mutant.NO_POISON_RULE, ONE_TICKET, STUCK),
    (Mutant.FINAL_JOB_NOT_FOLLOWED, ONE_PICTURE, STUCK),
    (Mutant.FOLLOWED_WITHOUT_LIMIT, ONE_TICKET, STUCK),
]

HARMLESS = {Mutant.NO_TOKEN_BUMP_AT_CLAIM, Mutant.NO_TOKEN_BUMP_AT_SWEEP}


@pytest.mark.parametrize("setting", SETTINGS)
def test_design_breaks_no_rule_and_can_always_end(setting: Setting) -> None:
    report = explore(JobModel(setting))

    assert report.counterexamples == {}


@pytest.mark.parametrize(
    "mutant, setting, rule",
    [pytest.param(*case, id=f"{case[0].name.lower()}: {case[2]}") for case in CAUGHT],
)
def test_mutant_is_caught(mutant: Mutant, setting: Setting, rule: str) -> None:
    report = explore(JobModel(setting, mutant), look_for=rule)

    assert rule in report.counterexamples, f"not caught, although {mutant.value}"


def test_every_mutant_is_tried() -> None:
    assert {mutant for mutant, _, _ in CAUGHT} | HARMLESS == set(Mutant)


def test_every_rule_is_broken_by_some_mutant() -> None:
    unbroken = set(Rule) - {rule for _, _, rule in CAUGHT}

    assert unbroken == set()


@pytest.mark.parametrize("mutant", sorted(HARMLESS), ids=lambda mutant: mutant.name.lower())
def test_one_token_bump_of_the_two_is_enough(mutant: Mutant) -> None:
    report = explore(JobModel(SYNC, mutant))

    assert report.counterexamples == {}


@pytest.mark.parametrize(
    "mutant, broken",
    [
        pytest.param(Mutant.CLOCK_NOT_CHECKED_BEFORE_SEND, Rule.SENT_AFTER_WRITTEN_OFF, id="clock"),
        pytest.param(Mutant.WRITTEN_OFF_BEFORE_DUE, Rule.SENT_AFTER_WRITTEN_OFF, id="due time"),
        pytest.param(Mutant.UNFENCED_INTENT, Rule.MOVED_BY_STRANGER, id="fence of intents"),
        pytest.param(Mutant.NO_TOKEN_BUMP, Rule.MOVED_BY_STRANGER, id="token"),
    ],
)
def test_bill_rests_on_the_counter_alone(mutant: Mutant, broken: Rule) -> None:
    report = explore(JobModel(ONE_PICTURE._replace(spare=1), mutant))

    assert set(report.counterexamples) == {broken}
