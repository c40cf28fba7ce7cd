"""What is counted of deliveries, once it is committed."""

from typing import Final

from prometheus_client import CollectorRegistry, Histogram

from app.kit.metrics import Registry

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


class WebhookInstruments:
    """Counts in one process."""

    def __init__(self, registry: Registry | None = None) -> None:
        """Without a `registry`, nobody reads what is counted."""
        self._tries_s = Histogram(
            "darkroom_webhook_try_duration_seconds",
            "Tries to deliver an event: `succeeded`, `put_off` (tried again later) or `given_up`.",
            ("outcome",),
            buckets=_SECONDS,
            registry=CollectorRegistry() if registry is None else registry,
        )

    def tried(self, outcome: str, duration_ms: int) -> None:
        """Count one try."""
        self._tries_s.labels(outcome).observe(duration_ms / 1000)
