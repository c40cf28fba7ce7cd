"""A short fault run on the real thing: whatever strikes, every promise is kept. `make chaos` runs longer ones."""

import pytest

from tests.chaos.nemesis import KINDS, plan
from tests.chaos.run import run


@pytest.mark.journey
@pytest.mark.timeout(300)
async def test_a_shaken_gateway_keeps_every_promise() -> None:
    report = await run(seed=20, seconds=10, jobs=30, apis=1, workers=2)
    assert report.is_clean, (report.verdict.violations, report.integrity, report.falls, report.bugs)
    assert report.faults.total() > 3
    assert report.jobs > 0


def test_the_same_seed_gives_the_same_faults() -> None:
    assert plan(3, 60) == plan(3, 60) != plan(4, 60)


def test_every_kind_of_fault_strikes_sooner_or_later() -> None:
    assert {fault.kind for seed in range(20) for fault in plan(seed, 60)} == set(KINDS)
