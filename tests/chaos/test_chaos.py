"""A short fault run on the real thing: whatever strikes, every promise is kept. `make chaos` runs longer ones."""

import asyncio

import httpx2
import pytest

from tests.chaos import broken_worker
from tests.chaos.cluster import open_cluster
from tests.chaos.history import History, Order
from tests.chaos.nemesis import KINDS, plan
from tests.chaos.run import judged, run, until_rest
from tests.simulators.script import PATIENCE_S


@pytest.mark.journey
@pytest.mark.timeout(300)
async def test_a_shaken_gateway_keeps_every_promise() -> None:
    report = await run(seed=20, seconds=10, jobs=30, apis=1, workers=2)
    assert report.is_clean, (report.verdict.violations, report.integrity, report.falls, report.bugs)
    assert report.faults.total() > 3
    assert report.jobs > 0


@pytest.mark.journey
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "variant,prompt",
    [("refuse", "order-1: [[502;billed|ok]]"), ("resend", "order-1: [[ok;delay=3|ok]]")],
)
async def test_a_worker_that_is_broken_on_purpose_is_caught(variant: str, prompt: str) -> None:
    history = History(orders={"order-1": Order(id="order-1", style="plain", n=1, calls_that_may_be_paid=1)})
    async with (
        open_cluster(seed=1, apis=1, workers=1, worker_command=broken_worker.command(variant)) as cluster,
        httpx2.AsyncClient(headers={"authorization": f"Bearer {cluster.api_key}"}, trust_env=False) as client,
    ):
        body = {"model": "prompt-vendor", "prompt": prompt, "quality": "low", "size": "1024x1024"}
        url = f"{cluster.base_urls[0]}/images/generations"
        (await client.post(url, params={"async": "true"}, json=body)).raise_for_status()
        if variant == "resend":
            async with asyncio.timeout(PATIENCE_S):
                while not (await cluster.vendors["openai-a"].ledger())["posts"]:  # noqa: ASYNC110 - over HTTP
                    await asyncio.sleep(0.05)
            (worker,) = cluster.workers
            await worker.kill()
            worker.start()
        await until_rest(cluster)
        verdict = await judged(cluster, history)
    assert len(verdict.violations["duplicated"]) == 1
    assert len(verdict.violations["understated"]) == 1


def test_the_same_seed_gives_the_same_faults() -> None:
    assert plan(3, 60) == plan(3, 60) != plan(4, 60)


def test_every_kind_of_fault_strikes_sooner_or_later() -> None:
    assert {fault.kind for seed in range(20) for fault in plan(seed, 60)} == set(KINDS)
