"""Processes that end in the middle of their work, seen by the clients whose pictures they were making."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables.jobs import jobs
from app.jobs import repository
from app.jobs.lifecycle import AttemptState
from app.jobs.records import Attempt
from tests.chaos.cluster import LEASE_S, Cluster, open_cluster
from tests.journeys.balancer import balanced
from tests.simulators.process import RemoteSimulator

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Two APIs and two workers on Postgres and Redis, with vendors that do not misbehave."""
    async with open_cluster(seed=1, apis=2, workers=2) as running:
        for vendor in set(running.vendors.values()):
            await vendor.reset()
            for occasion in ("purchase", "poll", "file"):
                await vendor.script(on=occasion, chances={}, seed=1)
        yield running


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[AsyncOpenAI]:
    """A stock client before a balancer."""
    async with (
        balanced(cluster.addresses) as base_url,
        AsyncOpenAI(base_url=base_url, api_key=cluster.api_key) as sdk,
    ):
        yield sdk


async def submit(client: AsyncOpenAI, model: str) -> str:
    answer: Any = await client.images.generate(model=model, prompt="a boat", extra_query={"async": "true"})
    return str(answer.id)


async def until(cluster: Cluster, job_id: str, state: AttemptState) -> list[Attempt]:
    """Wait until an attempt of the job is in this state, by looking into the table."""
    database = Database(cluster.database_url, pool_size=1)
    try:
        async with asyncio.timeout(60):
            while True:
                async with database.reading() as connection:
                    attempts = await repository.attempts_of(connection, [job_id])
                if any(item.state is state for item in attempts):
                    return attempts
                await asyncio.sleep(0.02)
    finally:
        await database.close()


async def job(client: AsyncOpenAI, job_id: str) -> dict[str, Any]:
    """Wait for a job's end."""
    while True:
        seen: dict[str, Any] = await client.get(
            f"/jobs/{job_id}", cast_to=dict, options={"params": {"wait": "30"}}
        )
        if seen["status"] not in ("queued", "in_progress"):
            return seen


async def kill_holder(cluster: Cluster, job_id: str) -> None:
    """Kill the worker that holds the job's lease, as `kill -9` does."""
    database = Database(cluster.database_url, pool_size=1)
    async with database.reading() as connection:
        query = select(jobs.c.lease_owner).where(jobs.c.id == job_id)
        owner = (await connection.execute(query)).scalar_one()
    await database.close()
    pid = int(owner.rpartition(":")[2])
    (holder,) = (worker for worker in cluster.workers if worker.pid == pid)
    await holder.kill()


async def ordered(vendor: RemoteSimulator) -> None:
    """Wait until an order has reached the vendor, by asking it."""
    async with asyncio.timeout(60):
        while True:
            if (await vendor.ledger())["posts"]:
                return
            await asyncio.sleep(0.02)


async def charges(cluster: Cluster) -> int:
    """What all vendors billed together."""
    ledgers = [
        await vendor.ledger() for vendor in {id(item): item for item in cluster.vendors.values()}.values()
    ]
    return sum(int(ledger["charges"]) for ledger in ledgers)


async def test_a_rolling_restart_shows_no_error_to_a_stock_client(
    cluster: Cluster, client: AsyncOpenAI
) -> None:
    stop = asyncio.Event()
    made = 0

    async def buy(model: str) -> None:
        nonlocal made
        while not stop.is_set():
            answer = await client.images.generate(model=model, prompt="a boat", size="1024x1024")
            assert answer.data
            made += 1

    async with asyncio.TaskGroup() as buyers:
        for model in ("prompt-vendor", "patient-vendor") * 3:
            buyers.create_task(buy(model))
        for member in cluster.members:
            await cluster.roll(member)
            await cluster.until_ready()
        stop.set()
    assert made >= len(cluster.members)
    assert await charges(cluster) == made
    assert not cluster.falls


async def test_an_order_at_a_vendor_goes_on_within_a_lease_of_its_workers_death(
    cluster: Cluster, client: AsyncOpenAI
) -> None:
    vendor = cluster.vendors["therouter-a"]
    await vendor.script("ok;delay=0")
    job_id = await submit(client, "patient-vendor")
    await until(cluster, job_id, AttemptState.ACCEPTED)
    began = time.monotonic()
    await kill_holder(cluster, job_id)
    ended = await job(client, job_id)
    assert ended["status"] == "succeeded"
    assert (await vendor.ledger())["posts"] == 1
    # The lease, a sweep, a restart of the process and the vendor's own time; with the default lease, 35 s.
    assert time.monotonic() - began < 10 * LEASE_S


async def test_a_call_whose_worker_died_is_never_made_again(cluster: Cluster, client: AsyncOpenAI) -> None:
    vendor = cluster.vendors["openai-a"]
    await vendor.script("hang")
    job_id = await submit(client, "prompt-vendor")
    await until(cluster, job_id, AttemptState.INTENT)
    await ordered(vendor)
    await kill_holder(cluster, job_id)
    await vendor.release()
    ended = await job(client, job_id)
    assert ended["error"]["code"] == "upstream_outcome_unknown"
    assert ended["cost"]["estimated"]
    assert float(ended["cost"]["usd"]) > 0
    assert (await vendor.ledger())["posts"] == 1


async def test_a_stock_clients_retry_collects_the_picture_that_a_dead_api_was_waiting_for(
    cluster: Cluster, client: AsyncOpenAI
) -> None:
    call = asyncio.create_task(client.images.generate(model="patient-vendor", prompt="a boat"))
    await ordered(cluster.vendors["therouter-a"])
    # The balancer's first connection goes to the second API; the first one takes the retry.
    await cluster.apis[1].kill()
    answer = await call
    assert answer.data
    assert await charges(cluster) == 1
