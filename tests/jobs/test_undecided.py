"""A worker that holds a job and does nothing about it cannot keep the job from its end."""

import pytest

from app.jobs.lifecycle import Lost, Status
from app.jobs.transitions import UNDECIDED_S
from tests.jobs.conftest import PRICE, Store

_DEADLINE_S = 600.0


async def held(store: Store, *, past_deadline_s: float) -> tuple[str, int]:
    """A job that is past its deadline and whose lease is renewed; its id and token."""
    job_id = await store.job()
    job = await store.claim()
    await store.age(job_id, _DEADLINE_S + past_deadline_s)
    assert await store.moves.renew({job_id: job.lease_token})
    return job_id, job.lease_token


async def test_a_job_that_its_holder_does_not_end_is_ended_soon_after_its_deadline(
    postgres_store: Store,
) -> None:
    job_id, token = await held(postgres_store, past_deadline_s=UNDECIDED_S + 1.0)
    assert await postgres_store.moves.end_overdue() == [job_id]
    job = await postgres_store.look(job_id)
    assert (job.status, job.lease_until, job.to_buy) == (Status.EXPIRED, None, 0)
    with pytest.raises(Lost):
        await postgres_store.moves.decide(job_id, token, max_rounds=4, followed=frozenset())


async def test_the_holder_is_given_its_time(postgres_store: Store) -> None:
    await held(postgres_store, past_deadline_s=UNDECIDED_S - 2.0)
    assert await postgres_store.moves.end_overdue() == []


async def test_a_call_under_way_does_not_keep_its_job_open_and_is_left_to_its_holder(
    postgres_store: Store,
) -> None:
    store = postgres_store
    job_id = await store.job()
    job = await store.claim()
    (attempt,) = await store.open(job)
    await store.age(job_id, _DEADLINE_S + UNDECIDED_S + 1.0)
    await store.moves.renew({job_id: job.lease_token})
    assert await store.moves.end_overdue() == [job_id]
    ended = await store.look(job_id)
    assert (ended.status, ended.lease_token) == (Status.FAILED, job.lease_token)
    assert ended.lease_until is not None
    assert (await store.succeed(attempt)).status is Status.FAILED
    assert (await store.attempts(job_id))[0].cost_micros == PRICE


async def test_a_job_beyond_its_time_limit_is_cancelled_though_its_holder_does_nothing(
    postgres_store: Store,
) -> None:
    store = postgres_store
    job_id = await store.job(cancel_after_s=60.0)
    job = await store.claim()
    await store.age(job_id, 62.0)
    await store.moves.renew({job_id: job.lease_token})
    assert await store.moves.call_off() == []
    await store.age(job_id, UNDECIDED_S)
    await store.moves.renew({job_id: job.lease_token})
    assert await store.moves.call_off() == [job_id]
    assert (await store.look(job_id)).status is Status.CANCELLED
