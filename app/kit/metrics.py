"""Counting what a process does, in Prometheus' terms: the registry, and what every process tells of itself.

What a room counts it defines in its own `instruments.py`; nothing is registered globally.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

# A second series beside each counter, with the time of its first count: nobody asks for it.
disable_created_metrics()  # type: ignore[no-untyped-call] # it has no types

Registry: TypeAlias = CollectorRegistry
Readings: TypeAlias = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
"""Labels and values, by the gauge's name."""

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `exposition` writes."""
_LAG_EVERY_S: Final = 0.5
_LAG_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def process_registry(version: str) -> Registry:
    """Build the registry of a process of this release, with what Prometheus tells of every Python process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Info("darkroom_build", "The release that runs.", registry=registry).info({"version": version})
    return registry


def exposition(registry: Registry) -> bytes:
    """Write everything that is counted, in Prometheus' text format. Takes milliseconds, so not for the event loop."""
    return generate_latest(registry)


class LoopLag:
    """How late the event loop comes to what is due, and every answer of this process with it."""

    def __init__(self, registry: Registry) -> None:
        self._lag = Histogram(
            "darkroom_event_loop_lag_seconds",
            "How late the event loop came to what was due, measured twice a second.",
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )

    async def run(self) -> None:
        """Measure, for ever."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            self._lag.observe(max(clock() - due, 0.0))


class Gauges(Collector):
    """Gauges that are read all at once when somebody asks. What is not known at the moment is not exported."""

    def __init__(self, meanings: Mapping[str, str], registry: Registry) -> None:
        """`meanings`: one sentence on each gauge, by its name."""
        self._meanings = meanings
        self._readings: Readings = {}
        registry.register(self)

    def show(self, readings: Readings) -> None:
        """Export these from now on, and nothing of what was known before."""
        self._readings = readings

    def describe(self) -> Iterable[Metric]:
        """Name the gauges, for the registry."""
        return [Metric(name, meaning, "gauge") for name, meaning in self._meanings.items()]

    def collect(self) -> Iterable[Metric]:
        """Tell what is known."""
        readings = self._readings
        for family in self.describe():
            for labels, value in readings.get(family.name, ()):
                family.add_sample(family.name, dict(labels), value)
            yield family
