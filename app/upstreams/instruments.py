"""What is counted of calls to upstreams: each request on the wire, where an attempt may need many."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram

from app.kit.metrics import Registry

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0)


class Exchange:
    """A call under way, and how it ended."""

    outcome = "broken"
    """The class of the answer's status such as `2xx`, a failure kind, or `broken`: ended by something else."""


class UpstreamInstruments:
    """Counts in one process."""

    def __init__(self, registry: Registry | None = None) -> None:
        """Without a `registry`, nobody reads what is counted."""
        registry = CollectorRegistry() if registry is None else registry
        self._calls_s = Histogram(
            "darkroom_upstream_call_duration_seconds",
            "Calls to an upstream (`submit`, `poll`, `fetch` of a picture), to the last byte of the answer.",
            ("upstream", "call", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "darkroom_upstream_calls_in_flight",
            "Calls of this process to an upstream that are under way.",
            ("upstream",),
            registry=registry,
        )

    @contextmanager
    def call(self, upstream: str, call: str) -> Iterator[Exchange]:
        """Count one call; how it ended is noted on what is lent."""
        exchange = Exchange()
        in_flight = self._in_flight.labels(upstream)
        in_flight.inc()
        began_at = time.perf_counter()
        try:
            yield exchange
        finally:
            in_flight.dec()
            took_s = time.perf_counter() - began_at
            self._calls_s.labels(upstream, call, exchange.outcome).observe(took_s)
