"""The moves of jobs and attempts on real databases: what each may do, and what it must refuse."""

import asyncio

import pytest
from asyncpg import PostgresError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.assets.records import AssetKind
from app.assets.repository import assets_of_jobs
from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.money import Certainty
from app.jobs.lifecycle import AttemptState, Buy, Lost, Status
from app.jobs.openings import NewAttempt, UpstreamLimits
from app.jobs.records import Attempt
from app.jobs.transitions import CLAIMS_MAX, FOLLOW_S
from tests.jobs.conftest import NO_LIMITS, PRICE, Store

BUSY = UpstreamFailure(FailureKind.BUSY, "limits our rate")
TIMED_OUT = UpstreamFailure(FailureKind.TIMED_OUT, "no answer")
REFUSED = UpstreamFailure(FailureKind.REFUSED, "content policy")


async def decide(store: Store, job_id: str, token: int, followed: frozenset[str] = frozenset()) -> object:
    decision = await store.moves.decide(job_id, token, max_rounds=4, followed=followed)
    return decision.verdict


async def test_a_claimed_job_is_held_and_asks_to_buy_all_its_pictures(store: Store) -> None:
    job_id = await store.job(n=3)
    job = await store.claim()
    assert (job.id, job.status, job.claims, job.lease_token) == (job_id, Status.IN_PROGRESS, 1, 1)
    assert await decide(store, job_id, job.lease_token) == Buy(3, 1)


async def test_a_held_job_is_not_claimed_again(store: Store) -> None:
    await store.job()
    await store.claim()
    assert await store.moves.claim("worker-2", 10) == []


async def test_pictures_in_hand_end_the_job_with_its_result(store: Store) -> None:
    job_id = await store.job(n=2)
    job = await store.claim()
    (attempt,) = await store.open(job)
    ended = await store.succeed(attempt)
    assert ended.status is Status.SUCCEEDED
    assert ended.result is not None
    assert ended.result["size"] == "1024x1024"
    (booked,) = await store.attempts(job_id)
    assert (booked.state, booked.cost_micros, booked.certainty) == (
        AttemptState.SUCCEEDED,
        PRICE,
        Certainty.ESTIMATED,
    )


async def test_the_counter_lets_no_picture_be_bought_twice(store: Store) -> None:
    await store.job(n=2)
    job = await store.claim()
    await store.open(job, 2)
    with pytest.raises(Lost):
        await store.open(job, 1)


async def test_a_repeated_commit_opens_no_second_attempt(store: Store) -> None:
    await store.job(n=1)
    job = await store.claim()
    planned = [NewAttempt(id="att_1", upstream="openai", target={}, pictures=1)]
    opened = [
        await store.moves.open_attempts(
            job.id, job.lease_token, planned, round_number=1, limits=NO_LIMITS, timeout_s=1.0
        )
        for _ in range(2)
    ]
    assert opened[0] == opened[1]
    assert len(await store.attempts(job.id)) == 1


async def test_what_proved_unpaid_may_be_bought_elsewhere(store: Store) -> None:
    job_id = await store.job(n=2)
    job = await store.claim()
    (attempt,) = await store.open(job)
    assert await store.moves.refuse(attempt, BUSY)
    assert await decide(store, job_id, job.lease_token) == Buy(2, 2)
    (booked,) = await store.attempts(job_id)
    assert (booked.state, booked.cost_micros) == (AttemptState.UNPAID, 0)


async def test_only_missing_pictures_are_bought_elsewhere(store: Store) -> None:
    job_id = await store.job(n=3)
    job = await store.claim()
    first, second, third = await store.open(job, 1, 1, 1)
    await store.succeed(first)
    await store.moves.refuse(second, BUSY)
    await store.succeed(third)
    assert await decide(store, job_id, job.lease_token) == Buy(1, 2)


async def test_an_unknown_outcome_ends_the_job_and_is_booked_as_paid(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    (attempt,) = await store.open(job)
    await store.moves.lose_track(attempt, TIMED_OUT)
    await decide(store, job_id, job.lease_token)
    ended = await store.look(job_id)
    assert ended.status is Status.FAILED
    assert ended.error is not None
    assert (ended.error["code"], ended.error["should_retry"]) == ("upstream_outcome_unknown", False)
    (booked,) = await store.attempts(job_id)
    assert (booked.cost_micros, booked.certainty) == (PRICE, Certainty.POSSIBLE)


async def test_failover_buys_once_more_after_an_unknown_outcome_and_never_again(store: Store) -> None:
    job_id = await store.job(spare=1)
    job = await store.claim()
    (first,) = await store.open(job)
    await store.moves.lose_track(first, TIMED_OUT)
    assert await decide(store, job_id, job.lease_token) == Buy(1, 2)
    (second,) = await store.open(job, 1, upstream="xairouter", round_number=2)
    await store.moves.lose_track(second, TIMED_OUT)
    await decide(store, job_id, job.lease_token)
    assert (await store.look(job_id)).status is Status.FAILED


async def test_a_refusal_is_final_whatever_else_could_be_asked(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    (attempt,) = await store.open(job)
    await store.moves.refuse(attempt, REFUSED)
    await decide(store, job_id, job.lease_token)
    error = (await store.look(job_id)).error
    assert error is not None
    assert (error["code"], error["status"]) == ("moderation_blocked", 400)


async def test_a_late_success_is_kept_and_changes_nothing(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    (attempt,) = await store.open(job)
    await store.moves.lose_track(attempt, TIMED_OUT)
    await decide(store, job_id, job.lease_token)
    after = await store.succeed(attempt)
    assert after.status is Status.FAILED
    (booked,) = await store.attempts(job_id)
    assert (booked.state, booked.certainty) == (AttemptState.SUCCEEDED, Certainty.ESTIMATED)


async def test_a_rescued_job_goes_to_another_worker_with_a_higher_token(postgres_store: Store) -> None:
    store = postgres_store
    job_id = await store.job()
    dead = await store.claim("worker-1")
    await store.age(job_id, 31.0)
    assert await store.moves.rescue() == [job_id]
    heir = await store.claim("worker-2")
    assert heir.lease_token > dead.lease_token
    with pytest.raises(Lost):
        await store.open(dead)


async def test_a_dangling_intent_is_judged_only_once_it_is_due(postgres_store: Store) -> None:
    store = postgres_store
    job_id = await store.job()
    await store.open(await store.claim("worker-1"))
    await store.age(job_id, 31.0)
    await store.moves.rescue()
    heir = await store.claim("worker-2")
    decision = await store.moves.decide(job_id, heir.lease_token, max_rounds=4, followed=frozenset())
    assert decision.judged_in_s is not None
    assert 200.0 < decision.judged_in_s < 330.0
    await store.age(job_id, 300.0)
    await decide(store, job_id, heir.lease_token)
    ended = await store.look(job_id)
    assert ended.error is not None
    assert ended.error["code"] == "upstream_outcome_unknown"


async def test_a_ticket_is_resumed_by_the_next_worker(postgres_store: Store) -> None:
    store = postgres_store
    job_id = await store.job()
    (attempt,) = await store.open(await store.claim("worker-1"), upstream="therouter")
    assert await store.moves.accept(attempt, "img_1")
    await store.age(job_id, 31.0)
    await store.moves.rescue()
    heir = await store.claim("worker-2")
    decision = await store.moves.decide(job_id, heir.lease_token, max_rounds=4, followed=frozenset())
    assert [item.ticket for item in decision.resume] == ["img_1"]


async def test_a_ticket_of_another_attempt_is_not_taken(store: Store) -> None:
    await store.job()
    (first,) = await store.open(await store.claim(), upstream="therouter")
    await store.moves.accept(first, "img_1")
    await store.job()
    (second,) = await store.open(await store.claim(), upstream="therouter")
    assert not await store.moves.accept(second, "img_1")


async def test_an_order_still_open_at_the_deadline_ends_the_job_and_is_followed_on(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    (attempt,) = await store.open(job, upstream="therouter")
    await store.moves.accept(attempt, "img_1")
    await store.age(job_id, 601.0)
    decision = await store.moves.decide(
        job_id, job.lease_token, max_rounds=4, followed=frozenset({attempt.id})
    )
    assert decision.job.status is Status.FAILED
    assert decision.job.error is not None
    assert decision.job.error["code"] == "upstream_outcome_unknown"
    assert (await store.attempts(job_id))[0].state is AttemptState.ACCEPTED
    assert decision.wake_in_s is not None
    assert decision.wake_in_s <= FOLLOW_S


async def test_an_unsent_job_is_cancelled_for_nothing(store: Store) -> None:
    job_id = await store.job()
    cancelled = await store.moves.cancel(job_id, "team_default")
    assert cancelled is not None
    assert cancelled[0].status is Status.CANCELLED
    assert await store.attempts(job_id) == []


async def test_a_sent_job_is_cancelled_at_once_and_its_call_is_booked_as_late(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    (attempt,) = await store.open(job)
    await store.moves.cancel(job_id, None)
    assert (await store.look(job_id)).status is Status.CANCELLED
    assert (await store.moves.renew({job_id: job.lease_token})) == {job_id: Status.CANCELLED}
    after = await store.succeed(attempt)
    assert after.status is Status.CANCELLED
    assert (await store.attempts(job_id))[0].cost_micros == PRICE


async def test_a_cancelled_job_with_an_open_call_is_followed_by_another_worker(postgres_store: Store) -> None:
    store = postgres_store
    job_id = await store.job()
    (attempt,) = await store.open(await store.claim("worker-1"), upstream="therouter")
    await store.moves.accept(attempt, "img_1")
    await store.moves.cancel(job_id, None)
    await store.age(job_id, 31.0)
    await store.moves.rescue()
    heir = await store.claim("worker-2")
    assert heir.status is Status.CANCELLED
    decision = await store.moves.decide(job_id, heir.lease_token, max_rounds=4, followed=frozenset())
    assert [item.id for item in decision.resume] == [attempt.id]


async def test_another_teams_job_is_not_there_to_cancel(store: Store) -> None:
    job_id = await store.job()
    assert await store.moves.cancel(job_id, "team_other") is None


async def test_a_final_job_is_not_cancelled(store: Store) -> None:
    job_id = await store.job()
    await store.moves.cancel(job_id, None)
    again = await store.moves.cancel(job_id, None)
    assert again is not None
    assert again[1] is False


async def test_a_claimed_job_is_not_started_before_an_attempt_is_opened(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    assert (await store.look(job_id)).started_at is None
    await store.open(job)
    assert (await store.look(job_id)).started_at is not None


async def test_a_job_that_asked_nobody_by_its_deadline_expires_in_its_holders_hands(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    await store.age(job_id, 601.0)
    await decide(store, job_id, job.lease_token)
    ended = await store.look(job_id)
    assert (ended.status, ended.lease_until) == (Status.EXPIRED, None)
    assert ended.error is not None
    assert ended.error["code"] == "upstream_unavailable"


async def test_a_job_that_was_put_back_without_an_attempt_expires(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    await store.moves.park(job_id, job.lease_token, delay_s=700.0)
    await store.age(job_id, 601.0)
    assert await store.moves.end_overdue() == [job_id]
    assert (await store.look(job_id)).status is Status.EXPIRED


async def test_a_job_whose_attempts_failed_does_not_expire(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    (attempt,) = await store.open(job)
    await store.moves.refuse(attempt, BUSY)
    await store.moves.park(job_id, job.lease_token, delay_s=700.0)
    await store.age(job_id, 601.0)
    assert await store.moves.end_overdue() == [job_id]
    ended = await store.look(job_id)
    assert ended.error is not None
    assert (ended.status, ended.error["code"]) == (Status.FAILED, "all_upstreams_failed")


async def test_a_call_of_a_dead_worker_does_not_keep_its_job_open_beyond_the_deadline(
    postgres_store: Store,
) -> None:
    store = postgres_store
    job_id = await store.job()
    await store.open(await store.claim("worker-1"))
    await store.age(job_id, 31.0)
    await store.moves.rescue()
    async with store.database.transaction() as connection:
        await connection.execute(text("UPDATE jobs SET deadline_at = now() - interval '1 s'"))
    assert await store.moves.end_overdue() == [job_id]
    ended = await store.look(job_id)
    assert ended.error is not None
    assert (ended.status, ended.error["code"]) == (Status.FAILED, "upstream_outcome_unknown")
    # Whoever began it may still be about to send it: it is not written off before its time.
    assert (await store.attempts(job_id))[0].state is AttemptState.INTENT
    heir = await store.claim("worker-2")
    await store.age(job_id, 300.0)
    await store.moves.renew({job_id: heir.lease_token})
    await decide(store, job_id, heir.lease_token)
    (attempt,) = await store.attempts(job_id)
    assert (attempt.state, attempt.certainty) == (AttemptState.UNKNOWN, Certainty.POSSIBLE)


async def test_a_call_in_flight_at_the_deadline_ends_the_job_and_brings_a_late_picture(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    (attempt,) = await store.open(job)
    await store.age(job_id, 600.5)
    decision = await store.moves.decide(
        job_id, job.lease_token, max_rounds=4, followed=frozenset({attempt.id})
    )
    assert decision.job.status is Status.FAILED
    assert decision.job.error is not None
    assert decision.job.error["code"] == "upstream_outcome_unknown"
    assert decision.job.lease_until is not None
    await store.succeed(attempt)
    async with store.database.reading() as connection:
        assets = await assets_of_jobs(connection, [job_id], [AssetKind.RESULT, AssetKind.LATE])
    assert [item.kind for item in assets] == [AssetKind.LATE]


async def test_a_job_is_cancelled_at_its_time_limit_by_its_holder(store: Store) -> None:
    job_id = await store.job(cancel_after_s=60.0)
    job = await store.claim()
    decision = await store.moves.decide(job_id, job.lease_token, max_rounds=4, followed=frozenset())
    assert decision.wake_in_s is not None
    assert 50.0 < decision.wake_in_s <= 60.0
    (attempt,) = await store.open(job)
    await store.age(job_id, 61.0)
    await decide(store, job_id, job.lease_token, frozenset({attempt.id}))
    ended = await store.look(job_id)
    assert (ended.status, ended.error, ended.to_buy) == (Status.CANCELLED, None, 0)
    assert (await store.attempts(job_id))[0].state is AttemptState.INTENT


async def test_a_waiting_job_is_cancelled_at_its_time_limit(store: Store) -> None:
    job_id = await store.job(cancel_after_s=60.0)
    assert await store.moves.call_off() == []
    await store.age(job_id, 61.0)
    assert await store.moves.call_off() == [job_id]
    assert await store.moves.call_off() == []
    assert (await store.look(job_id)).status is Status.CANCELLED


async def test_a_job_that_no_worker_took_by_its_deadline_expires(store: Store) -> None:
    job_id = await store.job()
    await store.age(job_id, 601.0)
    assert await store.moves.end_overdue() == [job_id]
    assert (await store.look(job_id)).status is Status.EXPIRED


async def test_a_job_that_kills_its_workers_is_stopped_with_its_open_call_booked(
    postgres_store: Store,
) -> None:
    store = postgres_store
    job_id = await store.job()
    for turn in range(CLAIMS_MAX):
        job = await store.claim(f"worker-{turn}")
        if turn == 0:
            await store.open(job)
        await store.age(job_id, 31.0)
        await store.moves.rescue()
    assert await store.moves.claim("worker-9", 1) == []
    assert await store.moves.end_overdue() == []  # its call may still be in flight somewhere
    await store.age(job_id, 300.0)
    assert await store.moves.end_overdue() == [job_id]
    assert (await store.look(job_id)).status is Status.FAILED
    assert (await store.attempts(job_id))[0].certainty is Certainty.POSSIBLE


async def test_pictures_in_hand_are_delivered_even_by_a_poisoned_job(postgres_store: Store) -> None:
    store = postgres_store
    job_id = await store.job(n=2)
    for turn in range(CLAIMS_MAX):
        job = await store.claim(f"worker-{turn}")
        if turn == 0:
            first, _ = await store.open(job, 1, 1)
            await store.succeed(first)
        await store.age(job_id, 31.0)
        await store.moves.rescue()
    await store.age(job_id, 300.0)
    await store.moves.end_overdue()
    ended = await store.look(job_id)
    assert ended.status is Status.SUCCEEDED
    assert ended.result is not None
    assert ended.result["adjusted"] == ["n: 1 of 2 pictures could be made"]


async def test_a_job_given_back_counts_no_claim(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    await store.moves.park(job_id, job.lease_token, delay_s=5.0)
    parked = await store.look(job_id)
    assert (parked.status, parked.claims) == (Status.QUEUED, 0)
    assert await store.moves.claim("worker-2", 1) == []
    await store.age(job_id, 6.0)
    assert (await store.claim("worker-2")).id == job_id


async def test_no_route_to_ask_ends_the_job_as_unavailable(store: Store) -> None:
    job = await store.claim() if await store.job() else None
    assert job is not None
    ended = await store.moves.give_up(job.id, job.lease_token)
    assert ended.error is not None
    assert ended.error["code"] == "upstream_unavailable"


async def test_an_upstreams_limits_hold_over_all_workers(store: Store) -> None:
    limits = UpstreamLimits(max_concurrency=2, requests_per_minute=None, images_per_minute=None)
    opened = 0
    for number in range(3):
        await store.job()
        job = await store.claim(f"worker-{number}")
        planned = [NewAttempt(id=f"att_{number}", upstream="openai", target={}, pictures=1)]
        opened += len(
            await store.moves.open_attempts(
                job.id, job.lease_token, planned, round_number=1, limits=limits, timeout_s=1.0
            )
        )
    assert opened == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET status = 'queued', finished_at = NULL",
        "UPDATE jobs SET lease_token = -1",
        "UPDATE attempts SET settled = 'released'",
    ],
    ids=["a final job moves", "the fence goes back", "an attempt is settled again"],
)
async def test_the_database_itself_guards(store: Store, statement: str) -> None:
    await store.job()
    (attempt,) = await store.open(await store.claim())
    await store.succeed(attempt)
    with pytest.raises((DBAPIError, PostgresError)):
        async with store.database.transaction() as connection:
            await connection.execute(text(statement))


async def test_two_workers_never_claim_the_same_job(postgres_store: Store) -> None:
    store = postgres_store
    ids = [await store.job() for _ in range(20)]
    taken = await asyncio.gather(*(store.moves.claim(f"worker-{number}", 5) for number in range(8)))
    claimed = [job.id for jobs in taken for job in jobs]
    assert len(claimed) == len(set(claimed))
    while batch := await store.moves.claim("worker-last", 5):
        claimed += [job.id for job in batch]
    assert sorted(claimed) == sorted(ids)


async def test_teams_take_turns_then_priority_then_age(store: Store) -> None:
    for _ in range(5):
        await store.job("many")
    urgent = await store.job("many", priority=0)
    single = await store.job("single")
    first_turns = {(await store.claim()).id for _ in range(2)}
    assert first_turns == {urgent, single}


async def test_a_job_with_an_open_call_is_not_ended_for_want_of_a_route(store: Store) -> None:
    job_id = await store.job(n=2)
    job = await store.claim()
    first, second = await store.open(job, 1, 1)
    await store.moves.refuse(second, BUSY)
    await store.moves.give_up(job_id, job.lease_token)
    ended = await store.succeed(first)
    assert ended.status is Status.SUCCEEDED


async def test_want_of_a_route_does_not_hide_that_money_may_be_gone(store: Store) -> None:
    job_id = await store.job(spare=1)
    job = await store.claim()
    (attempt,) = await store.open(job)
    await store.moves.lose_track(attempt, TIMED_OUT)
    ended = await store.moves.give_up(job_id, job.lease_token)
    assert ended.error is not None
    assert (ended.error["code"], ended.error["should_retry"]) == ("upstream_outcome_unknown", False)


async def test_giving_up_changes_nothing_of_a_job_that_was_cancelled_meanwhile(store: Store) -> None:
    job_id = await store.job(n=2)
    job = await store.claim()
    first, _ = await store.open(job, 1, 1)
    await store.succeed(first)
    await store.moves.cancel(job_id, None)
    ended = await store.moves.give_up(job_id, job.lease_token)
    assert ended.status is Status.CANCELLED


async def test_a_final_job_holds_no_money_for_pictures_that_nobody_buys(store: Store) -> None:
    job_id = await store.job(n=2)
    await store.moves.cancel(job_id, None)
    assert (await store.look(job_id)).to_buy == 0


async def test_no_client_gets_more_pictures_than_asked_for(store: Store) -> None:
    job_id = await store.job(spare=1)
    job = await store.claim()
    (first,) = await store.open(job)
    await store.moves.lose_track(first, TIMED_OUT)
    (second,) = await store.open(job, 1, upstream="xairouter", round_number=2)
    await store.succeed(first)
    ended = await store.succeed(second)
    assert ended.result is not None
    async with store.database.reading() as connection:
        assets = await assets_of_jobs(connection, [job_id], [AssetKind.RESULT, AssetKind.LATE])
    assert ended.result["files"] == [item.id for item in assets if item.kind is AssetKind.RESULT]
    assert [item.kind for item in assets] == [AssetKind.RESULT, AssetKind.LATE]


async def test_one_order_is_given_to_one_of_two_attempts_that_claim_it_at_once(postgres_store: Store) -> None:
    store = postgres_store
    attempts: list[Attempt] = []
    for _ in range(8):
        await store.job()
        attempts += await store.open(await store.claim(), upstream="therouter")
    accepted = await asyncio.gather(*(store.moves.accept(attempt, "img_1") for attempt in attempts))
    assert sorted(accepted) == [False] * 7 + [True]
