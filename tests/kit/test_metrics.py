"""Gauges that are read when somebody asks, and a loop's lag."""

import asyncio
import time

from prometheus_client import CollectorRegistry

from app.kit.metrics import Gauges, LoopLag, exposition, process_registry
from tests.scrape import Scrape


def told(registry: CollectorRegistry) -> Scrape:
    return Scrape(exposition(registry).decode())


def test_a_gauge_that_is_not_known_any_more_is_not_told() -> None:
    registry = CollectorRegistry()
    gauges = Gauges({"darkroom_a": "One.", "darkroom_b": "Another."}, registry)
    assert told(registry).value("darkroom_a") is None
    gauges.show({"darkroom_a": [({"upstream": "openai"}, 2.0)], "darkroom_b": [({}, 1.0)]})
    assert told(registry).value("darkroom_a", upstream="openai") == 2
    gauges.show({"darkroom_b": [({}, 0.0)]})
    assert told(registry).value("darkroom_a") is None
    assert told(registry).value("darkroom_b") == 0


async def test_a_loop_that_is_held_up_is_told() -> None:
    registry = CollectorRegistry()
    running = asyncio.create_task(LoopLag(registry).run())
    await asyncio.sleep(0.1)
    time.sleep(0.9)  # noqa: ASYNC251 - holding it up is the point
    await asyncio.sleep(0.1)
    running.cancel()
    assert (told(registry).value("darkroom_event_loop_lag_seconds_sum") or 0) > 0.2


def test_processes_in_one_do_not_share_their_counts() -> None:
    one, other = process_registry("1.0"), process_registry("2.0")
    assert told(one).value("darkroom_build_info", version="1.0") == 1
    assert told(other).value("darkroom_build_info", version="1.0") is None
