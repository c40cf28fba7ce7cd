"""What is counted of requests. Labels are methods that HTTP knows and templates of routes, never what was sent."""

from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram

from app.kit.metrics import Registry

_SECONDS: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
)
"""A poll takes milliseconds; a caller who is held for a picture, minutes."""
UNMATCHED: Final = "unmatched"
"""The route of requests that reach none: without a key, or for something that is not there."""
GONE: Final = 499
"""The status of a request whose client went away before it had one."""


class HttpInstruments:
    """Counts in one process."""

    def __init__(self, registry: Registry | None = None) -> None:
        """Without a `registry`, nobody reads what is counted."""
        registry = CollectorRegistry() if registry is None else registry
        self._requests_s = Histogram(
            "darkroom_http_request_duration_seconds",
            "Requests, from their head to the last byte of the answer; status 499: the client went away before.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "darkroom_http_requests_in_flight",
            "Requests under way, callers who are held for their pictures among them.",
            registry=registry,
        )

    def began(self) -> None:
        """Count a request that has come in."""
        self._in_flight.inc()

    def ended(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count a request that is over."""
        self._in_flight.dec()
        self._requests_s.labels(method, route, str(status)).observe(duration_s)
