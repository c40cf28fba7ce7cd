"""Only a claim that ends with its worker counts against a job; a worker that was merely cut off takes it back."""

from app.jobs.lifecycle import Status
from app.jobs.transitions import CLAIMS_MAX
from tests.jobs.conftest import Store


async def lose_lease(store: Store, job_id: str) -> None:
    """Claim the job, and let its lease lapse as if the worker had gone silent."""
    await store.claim()
    await store.age(job_id, 60.0)
    assert await store.moves.rescue() == [job_id]


async def test_a_job_whose_workers_died_is_stopped_as_poisoned(postgres_store: Store) -> None:
    job_id = await postgres_store.job()
    for _ in range(CLAIMS_MAX):
        await lose_lease(postgres_store, job_id)
    assert await postgres_store.moves.end_overdue() == [job_id]
    assert (await postgres_store.look(job_id)).status is Status.FAILED


async def test_a_job_whose_workers_lived_through_an_outage_goes_on(postgres_store: Store) -> None:
    job_id = await postgres_store.job()
    for _ in range(CLAIMS_MAX):
        await lose_lease(postgres_store, job_id)
        await postgres_store.moves.forgive(job_id)
    assert await postgres_store.moves.end_overdue() == []
    assert (await postgres_store.claim()).claims == 1


async def test_forgiving_too_often_does_no_harm(store: Store) -> None:
    job_id = await store.job()
    await store.moves.forgive(job_id)
    await store.moves.forgive("job_unknown")
    job = await store.claim()
    assert job.claims == 1
