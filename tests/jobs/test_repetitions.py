"""One request, however often it is sent: idempotency keys, the SDK's retries, lost answers to COMMIT."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import func, select, text

from app.db.connection import Connection
from app.db.engine import Database, StoreUnavailable
from app.db.tables.job_metadata import job_metadata
from app.db.tables.jobs import jobs
from app.jobs import adoption
from app.jobs.errors import IdempotencyKeyReused
from tests.jobs.conftest import Store
from tests.jobs.shop import front_door, submission


async def count(store: Store) -> int:
    """How many jobs there are."""
    async with store.database.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(jobs))).scalar_one()


async def test_two_hundred_twins_with_one_key_are_one_job(postgres_store: Store) -> None:
    store = postgres_store
    team, door = await store.team(), front_door(store.database)
    twins = [submission(team, idempotency_key="order-1") for _ in range(200)]
    done = await asyncio.gather(*(door.submit(twin) for twin in twins))
    assert len({item.job.id for item in done}) == 1
    assert [item.is_replay for item in done].count(False) == 1
    assert await count(store) == 1


async def test_a_key_does_not_stand_for_another_request(store: Store) -> None:
    team, door = await store.team(), front_door(store.database)
    first = await door.submit(submission(team, "a boat", idempotency_key="order-1"))
    with pytest.raises(IdempotencyKeyReused) as refused:
        await door.submit(submission(team, "a ship", idempotency_key="order-1"))
    assert refused.value.job_id == first.job.id
    assert await count(store) == 1


async def test_twins_with_different_requests_under_one_key_are_told_apart(postgres_store: Store) -> None:
    store = postgres_store
    team, door = await store.team(), front_door(store.database)
    twins = [submission(team, f"boat {number % 2}", idempotency_key="order-1") for number in range(20)]
    done = await asyncio.gather(*(door.submit(twin) for twin in twins), return_exceptions=True)
    refused = [item for item in done if isinstance(item, IdempotencyKeyReused)]
    assert len(refused) == 10
    assert await count(store) == 1


async def test_a_key_is_each_teams_own(store: Store) -> None:
    door = front_door(store.database)
    done = [
        await door.submit(submission(await store.team(name), idempotency_key="order-1"))
        for name in ("red", "blue")
    ]
    assert len({item.job.id for item in done}) == 2


async def test_a_key_past_its_life_is_free_again(store: Store) -> None:
    team, door = await store.team(), front_door(store.database)
    await door.submit(submission(team, "a boat", idempotency_key="order-1"))
    async with store.database.transaction() as connection:
        await connection.execute(
            text("UPDATE idempotency_keys SET expires_at = '2020-01-01 00:00:00.000000+00:00'")
        )
    assert not (await door.submit(submission(team, "a ship", idempotency_key="order-1"))).is_replay


async def test_five_identical_calls_and_one_retry_adopt_one_job_once(postgres_store: Store) -> None:
    store = postgres_store
    team, door = await store.team(), front_door(store.database)
    calls = await asyncio.gather(*(door.submit(submission(team)) for _ in range(5)))
    broken = calls[2].job.id
    await door.cut_off(broken)
    retry = await door.submit(submission(team, sdk_retry=1))
    assert (retry.job.id, retry.is_replay) == (broken, True)
    assert await count(store) == 5


async def test_retries_at_once_adopt_different_jobs(postgres_store: Store) -> None:
    store = postgres_store
    team, door = await store.team(), front_door(store.database)
    calls = [await door.submit(submission(team)) for _ in range(5)]
    await asyncio.gather(*(door.cut_off(call.job.id) for call in calls))
    retries = await asyncio.gather(*(door.submit(submission(team, sdk_retry=1)) for _ in range(5)))
    assert {item.job.id for item in retries} == {item.job.id for item in calls}
    assert await count(store) == 5


async def test_a_retry_waits_until_the_broken_call_is_noticed(store: Store) -> None:
    team, door = await store.team(), front_door(store.database)
    first = await door.submit(submission(team))
    retry = asyncio.ensure_future(door.submit(submission(team, sdk_retry=1)))
    await asyncio.sleep(0)
    await door.cut_off(first.job.id)
    assert (await retry).job.id == first.job.id


async def test_an_adopted_job_is_adopted_again_only_by_a_later_retry(store: Store) -> None:
    team, door = await store.team(), front_door(store.database)
    first = await door.submit(submission(team))
    for retry in (1, 2):
        await door.cut_off(first.job.id)
        assert (await door.submit(submission(team, sdk_retry=retry))).job.id == first.job.id
    await door.cut_off(first.job.id)
    assert (await door.submit(submission(team, sdk_retry=2))).job.id != first.job.id


@pytest.mark.parametrize(
    "change", [{"prompt": "a ship"}, {"api_key_id": "key_2"}], ids=["other request", "other key"]
)
async def test_only_the_same_call_under_the_same_key_adopts(store: Store, change: dict[str, str]) -> None:
    team, door = await store.team(), front_door(store.database)
    first = await door.submit(submission(team))
    await door.cut_off(first.job.id)
    assert (await door.submit(submission(team, sdk_retry=1, **change))).job.id != first.job.id


async def test_a_delivered_job_is_not_adopted(store: Store) -> None:
    team, door = await store.team(), front_door(store.database)
    first = await door.submit(submission(team))
    await door.delivered(first.job.id)
    await door.cut_off(first.job.id)
    assert (await door.submit(submission(team, sdk_retry=1))).job.id != first.job.id


async def test_a_first_call_adopts_nothing(store: Store) -> None:
    team, door = await store.team(), front_door(store.database)
    first = await door.submit(submission(team))
    await door.cut_off(first.job.id)
    assert (await door.submit(submission(team))).job.id != first.job.id


class Stuck(Database):
    """A database whose next transaction stands still before its COMMIT until it is let go."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.stands = asyncio.Event()
        self.go_on = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Run a transaction, and stand still before it is committed."""
        async with super().transaction() as connection:
            yield connection
            self.stands.set()
            await self.go_on.wait()


async def test_a_retry_finds_the_job_that_is_still_being_written(
    postgres_store: Store, postgres_url: str
) -> None:
    store, stuck = postgres_store, Stuck(postgres_url)
    team, door = await store.team(), front_door(store.database)
    first = asyncio.ensure_future(front_door(stuck).submit(submission(team, sdk_retry=0)))
    await stuck.stands.wait()
    retry = asyncio.ensure_future(door.submit(submission(team, sdk_retry=1)))
    queueing = asyncio.ensure_future(_until_somebody_queues(store.database))
    await asyncio.wait({retry, queueing}, return_when=asyncio.FIRST_COMPLETED)
    stuck.go_on.set()
    await door.cut_off((await first).job.id)
    assert ((await retry).job.id, (await retry).is_replay) == ((await first).job.id, True)
    assert await count(store) == 1
    queueing.cancel()
    await stuck.close()


async def _until_somebody_queues(database: Database) -> None:
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    async with database.reading() as connection:
        while (await connection.execute(query)).scalar_one() == 0:
            continue


async def test_a_call_that_its_own_retry_overtook_joins_the_retrys_job(store: Store) -> None:
    team, door = await store.team(), front_door(store.database)
    stuck = submission(team, sdk_retry=0)
    retry = await door.submit(submission(team, sdk_retry=1))
    late = await door.submit(stuck)
    assert (late.job.id, late.is_replay) == (retry.job.id, True)
    assert await count(store) == 1


async def test_a_call_that_comes_after_a_retry_is_one_of_its_own(store: Store) -> None:
    team, door = await store.team(), front_door(store.database)
    retry = await door.submit(submission(team, sdk_retry=1))
    assert (await door.submit(submission(team, sdk_retry=0))).job.id != retry.job.id


class Forgetful(Database):
    """A database whose answers to the next COMMITs are lost, after they have landed."""

    lost = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Run a transaction; the caller may not learn that it was committed."""
        async with super().transaction() as connection:
            yield connection
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable("the answer to COMMIT was lost")


@pytest.mark.parametrize("key", [None, "order-1"])
async def test_a_lost_answer_to_commit_leaves_one_job(
    store: Store, database_url: str, key: str | None
) -> None:
    team, forgetful = await store.team(), Forgetful(database_url)
    forgetful.lost = 2
    done = await front_door(forgetful).submit(
        submission(team, idempotency_key=key, metadata={"order": "4711"})
    )
    await forgetful.close()
    assert not done.is_replay
    assert await count(store) == 1
    async with store.database.reading() as connection:
        pairs = (await connection.execute(select(job_metadata.c.job_id))).scalars().all()
    assert pairs == [done.job.id]


async def test_a_client_told_that_the_database_is_away_finds_its_job_by_its_key(
    store: Store, database_url: str
) -> None:
    team, forgetful = await store.team(), Forgetful(database_url)
    forgetful.lost = 3
    call = submission(team, idempotency_key="order-1")
    with pytest.raises(StoreUnavailable):
        await front_door(forgetful).submit(call)
    await forgetful.close()
    assert (await front_door(store.database).submit(call)).is_replay
    assert await count(store) == 1


async def test_an_adoption_whose_answer_was_lost_leaves_the_job_to_the_next_retry(store: Store) -> None:
    team, door = await store.team(), front_door(store.database)
    first = await door.submit(submission(team))
    await door.cut_off(first.job.id)
    async with store.database.transaction() as connection:
        taken = await adoption.adopt(connection, "key_1", submission(team).fingerprint, retry=1, held_s=0.0)
    assert taken == first.job.id
    assert (await door.submit(submission(team, sdk_retry=2))).job.id == first.job.id
