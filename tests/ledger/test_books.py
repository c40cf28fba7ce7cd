"""Money moves with the jobs that hold it: after each move every budget agrees with its attempts."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.db.engine import Database
from app.db.tables.budgets import budgets
from app.db.tables.jobs import jobs
from app.db.tables.ledger_entries import ledger_entries
from app.domain.failures import FailureKind, UpstreamFailure
from app.jobs.lifecycle import Status
from app.ledger.errors import InsufficientQuota
from tests.jobs.shop import EAGER
from tests.ledger.conftest import TEAM, Till

BUSY = UpstreamFailure(FailureKind.BUSY, "limits our rate")
REFUSED = UpstreamFailure(FailureKind.REFUSED, "content policy")
TIMED_OUT = UpstreamFailure(FailureKind.TIMED_OUT, "no answer")
AMPLE = "100"


async def _hold(till: Till) -> int:
    """What one picture holds."""
    job = await till.submit()
    await till.door.cancel(job.id, TEAM)
    assert job.picture_hold_micros is not None
    return job.picture_hold_micros


async def test_a_job_without_a_limit_counts_towards_no_budget(till: Till) -> None:
    job = await till.submit()
    assert list(job.budgets) == []
    assert await till.rows() == []


async def test_a_job_holds_its_highest_price_until_it_is_known_what_it_cost(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    hold = await _hold(till)
    _, (attempt,) = await till.start(n=2)
    assert await till.books() == (2 * hold, 0)
    await till.deliver(attempt, 1_000)
    assert await till.books() == (0, 1_000)


async def test_limits_of_the_team_and_of_the_key_all_apply(till: Till) -> None:
    await till.limit(budget_day_usd=AMPLE, budget_month_usd=AMPLE)
    await till.limit(of_key=True, budget_day_usd=AMPLE)
    hold = await _hold(till)
    _, (attempt,) = await till.start()
    assert {(row.reserved_micros, row.spent_micros) for row in await till.rows()} == {(hold, 0)}
    await till.deliver(attempt, 5)
    rows = await till.rows()
    assert len(rows) == 3
    assert {(row.reserved_micros, row.spent_micros) for row in rows} == {(0, 5)}


async def test_a_full_budget_refuses_the_job_and_leaves_the_others_as_they_were(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    await till.limit(of_key=True, budget_day_usd="0.000001")
    with pytest.raises(InsufficientQuota) as refused:
        await till.submit()
    assert "API key" in refused.value.message
    assert [(row.reserved_micros, row.spent_micros) for row in await till.rows()] == [(0, 0), (0, 0)]
    assert not (await till.door.search(TEAM, metadata={}))[0]


async def test_a_replayed_request_needs_no_budget(till: Till) -> None:
    job = await till.submit(idempotency_key="once")
    await till.limit(budget_month_usd="0")
    assert (await till.submit(idempotency_key="once")).id == job.id
    with pytest.raises(InsufficientQuota):
        await till.submit(prompt="another")


async def test_a_call_that_was_not_paid_for_gives_its_hold_back_to_the_job(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    hold = await _hold(till)
    job, (first, second) = await till.start(1, 1, n=2)
    await till.store.moves.refuse(first, BUSY)
    assert await till.books() == (2 * hold, 0)
    await till.store.moves.refuse(second, REFUSED)
    assert await till.books() == (0, 0), "a refused request buys nothing more"
    decision = await till.store.moves.decide(job.id, job.lease_token, max_rounds=4, followed=frozenset())
    assert decision.job.status is Status.FAILED
    assert await till.books() == (0, 0)


async def test_fewer_pictures_than_asked_for_free_the_rest_at_the_end(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    _, (attempt,) = await till.start(n=3)
    done = await till.deliver(attempt, 700, made=1)
    assert done.status is Status.SUCCEEDED
    assert await till.books() == (0, 700)


async def test_an_unknown_outcome_is_booked_as_its_whole_hold(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    hold = await _hold(till)
    job, (attempt,) = await till.start(n=2)
    await till.store.moves.lose_track(attempt, TIMED_OUT)
    assert await till.books() == (0, 2 * hold)
    await till.store.moves.decide(job.id, job.lease_token, max_rounds=4, followed=frozenset())
    assert await till.books() == (0, 2 * hold)


async def test_a_late_success_corrects_what_was_booked_and_says_so(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    hold = await _hold(till)
    job, (attempt,) = await till.start()
    await till.store.moves.lose_track(attempt, TIMED_OUT)
    await till.store.moves.decide(job.id, job.lease_token, max_rounds=4, followed=frozenset())
    await till.deliver(attempt, 900)
    assert await till.books() == (0, 900)
    async with till.database.reading() as connection:
        (entry,) = (await connection.execute(select(ledger_entries))).all()
    assert (entry.reason, entry.amount_micros, entry.cost_micros, entry.was) == (
        "delivered",
        900 - hold,
        900,
        "possible",
    )


async def test_failover_holds_the_price_of_its_extra_attempt_again(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    hold = await _hold(till)
    job, (first,) = await till.start(model=EAGER)
    await till.store.moves.lose_track(first, TIMED_OUT)
    assert await till.books() == (hold, hold)
    (second,) = await till.store.open(job, round_number=2)
    await till.deliver(second, 10)
    assert await till.books() == (0, hold + 10)


async def test_failover_buys_no_more_than_the_budget_allows(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    hold = await _hold(till)
    await till.limit(budget_month_usd=(2 * hold - 1) / 1_000_000)
    job, (first,) = await till.start(model=EAGER)
    await till.store.moves.lose_track(first, TIMED_OUT)
    assert await till.books() == (0, hold)
    decision = await till.store.moves.decide(job.id, job.lease_token, max_rounds=4, followed=frozenset())
    assert decision.job.status is Status.FAILED
    assert (decision.job.error or {})["code"] == "upstream_outcome_unknown"


async def test_a_cancelled_job_keeps_only_what_its_open_calls_hold(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    hold = await _hold(till)
    job, (attempt,) = await till.start(1, n=3)
    assert await till.books() == (3 * hold, 0)
    await till.door.cancel(job.id, TEAM)
    assert await till.books() == (hold, 0)
    await till.store.moves.refuse(attempt, BUSY)
    assert await till.books() == (0, 0)


async def test_giving_up_frees_what_nobody_will_buy(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    hold = await _hold(till)
    job, _ = await till.start(1, n=2)
    await till.store.moves.give_up(job.id, job.lease_token)
    assert await till.books() == (hold, 0)


async def test_a_job_that_never_starts_frees_its_hold(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE, budget_day_usd=AMPLE)
    job = await till.submit(n=2)
    await till.store.age(job.id, 10_000)
    assert await till.store.moves.end_overdue() == [job.id]
    assert {row.reserved_micros for row in await till.rows()} == {0}


async def test_a_cost_beyond_its_hold_is_booked_all_the_same(till: Till) -> None:
    await till.limit(budget_month_usd=AMPLE)
    hold = await _hold(till)
    await till.limit(budget_month_usd=hold / 1_000_000)
    _, (attempt,) = await till.start()
    await till.deliver(attempt, 3 * hold)
    assert await till.books() == (0, 3 * hold)
    with pytest.raises(InsufficientQuota):
        await till.submit(prompt="one more")


async def test_a_limit_set_in_mid_period_counts_what_the_period_has_cost(till: Till) -> None:
    _, (attempt,) = await till.start()
    await till.deliver(attempt, 4_000)
    waiting = await till.submit()
    hold = waiting.picture_hold_micros or 0
    await till.limit(budget_month_usd=AMPLE)
    await till.submit()
    (row,) = await till.rows()
    assert (row.opening_micros, row.reserved_micros, row.spent_micros) == (4_000 + hold, hold, 4_000 + hold)


async def test_a_raised_limit_holds_for_the_next_job_and_a_lowered_one_too(till: Till) -> None:
    await till.limit(budget_month_usd="0")
    with pytest.raises(InsufficientQuota):
        await till.submit()
    await till.limit(budget_month_usd=AMPLE)
    await till.submit()
    await till.limit(budget_month_usd="0.000001")
    with pytest.raises(InsufficientQuota):
        await till.submit(prompt="one more")


async def test_a_job_is_settled_in_the_period_in_which_it_was_handed_in(till: Till) -> None:
    await till.limit(budget_day_usd=AMPLE)
    _, (attempt,) = await till.start()
    (yesterday,) = await till.rows()
    # As if the day had turned while the picture was made.
    await _rename(till, yesterday.id, yesterday.id[:-2] + "00")
    await till.submit(prompt="of today")
    await till.deliver(attempt, 77)
    of_yesterday, of_today = await till.rows()
    assert (of_yesterday.reserved_micros, of_yesterday.spent_micros) == (0, 77)
    assert of_today.reserved_micros > 0


async def _rename(till: Till, budget_id: str, name: str) -> None:
    async with till.database.transaction() as connection:
        await connection.execute(update(budgets).where(budgets.c.id == budget_id).values(id=name))
        past = {"budgets": [name], "created_at": jobs.c.created_at}
        await connection.execute(update(jobs).values(**past))
        for row in (await connection.execute(select(jobs.c.id, jobs.c.created_at))).all():
            earlier = row.created_at - timedelta(days=1)
            await connection.execute(update(jobs).where(jobs.c.id == row.id).values(created_at=earlier))
    # A process of the day before is gone as well.
    till.door = type(till)(till.database).door


async def test_rivals_for_the_same_budgets_never_wait_for_each_other_in_a_circle(postgres_url: str) -> None:
    database = Database(postgres_url)
    try:
        till = Till(database)
        await till.open()
        await till.limit(budget_day_usd=AMPLE, budget_month_usd=AMPLE)
        await till.limit(of_key=True, budget_day_usd=AMPLE)

        async def one(number: int) -> None:
            job = await till.submit(prompt=f"boat {number}")
            await till.door.cancel(job.id, TEAM)

        await asyncio.gather(*(one(number) for number in range(30)))
        assert {(row.reserved_micros, row.spent_micros) for row in await till.rows()} == {(0, 0)}
    finally:
        await database.close()
