"""A worker that holds a job and does nothing about it cannot keep the job from its end."""

import pytest

from app.jobs.lifecycle import Status
from app.jobs.transitions import UNDECIDED_S, Lost
from tests.jobs.conftest import Store

_DEADLINE_S = 600.0


async def held(store: Store, *, past_deadline_s: float) -> tuple[str, int]:
    """A job that is past its deadline and whose lease is renewed; its id and token."""
    job_id = await store.job()
    job = await store.claim()
    await store.age(job_id, _DEADLINE_S + past_deadline_s)
    assert await store.moves.renew({job_id: job.lease_token})
    return job_id, job.lease_token


async def test_a_job_that_its_holder_does_not_end_is_ended_within_the_promised_minute(
    postgres_store: Store,
) -> None:
    job_id, token = await held(postgres_store, past_deadline_s=UNDECIDED_S + 1.0)
    assert await postgres_store.moves.end_overdue() == [job_id]
    job = await postgres_store.look(job_id)
    assert (job.status, job.lease_until, job.to_buy) == (Status.FAILED, None, 0)
    with pytest.raises(Lost):
        await postgres_store.moves.decide(job_id, token, max_rounds=4, followed=frozenset())


async def test_the_holder_is_given_its_time(postgres_store: Store) -> None:
    await held(postgres_store, past_deadline_s=UNDECIDED_S - 5.0)
    assert await postgres_store.moves.end_overdue() == []


async def test_a_call_under_way_is_waited_for(postgres_store: Store) -> None:
    job_id = await postgres_store.job()
    job = await postgres_store.claim()
    await postgres_store.open(job)
    await postgres_store.age(job_id, _DEADLINE_S + UNDECIDED_S + 1.0)
    await postgres_store.moves.renew({job_id: job.lease_token})
    assert await postgres_store.moves.end_overdue() == []
