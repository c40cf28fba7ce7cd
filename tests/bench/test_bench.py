"""The benchmark runs, with numbers so small that they say nothing; `make bench` measures."""

import pytest

from tests.bench.load import percentile
from tests.bench.measures import Sizes
from tests.bench.run import ratios, run, table

TINY = Sizes(
    sequential=2,
    concurrent=4,
    in_flight=2,
    large=2,
    waiting_jobs=3,
    waiting_s=0.5,
    submitted=3,
    rows=100,
    failing=1,
    rounds=1,
)


@pytest.mark.journey
@pytest.mark.timeout(300)
async def test_a_tiny_run_measures_everything_and_compares_it_with_direct_calls() -> None:
    said: list[str] = []
    findings = await run(TINY, has_peers=False, say=said.append)
    ours = findings.figures["darkroom"]
    assert {"added_latency_p50_ms", "small_per_core_s", "jobs_in_flight", "submit_per_s_full"} <= ours.keys()
    assert {"poll_per_s_empty", "large_mb_per_request", "calls_error"} <= ours.keys()
    assert ours["calls_silent"] == 1
    assert "small_per_s: darkroom / direct" in findings.ratios
    assert "| small_per_s |" in table(findings)


def test_ratios_are_those_of_what_both_were_measured_for() -> None:
    figures = {
        "direct": {"small_per_s": 100.0},
        "darkroom": {"small_per_s": 50.0, "large_per_core_s": 4.0},
        "peer": {"small_per_s": 10.0},
    }
    assert ratios(figures) == {"small_per_s: darkroom / direct": 0.5, "small_per_s: darkroom / peer": 5.0}


def test_percentiles_go_by_nearest_rank() -> None:
    assert [percentile(range(100), share) for share in (0.0, 0.5, 0.99, 1.0)] == [0, 50, 99, 99]
