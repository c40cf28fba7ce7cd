"""The doorbell: tells workers that a job may be waiting. A hint; whoever misses it looks into the table by itself."""

import asyncio
from typing import Protocol


class Doorbell(Protocol):
    """Rings at the workers' door."""

    def ring(self, job_id: str) -> None:
        """Say that this job may be waiting, without waiting and without ever failing."""
        ...


class LocalDoorbell:
    """A doorbell for workers of the same process."""

    def __init__(self, rung: asyncio.Event) -> None:
        self._rung = rung

    def ring(self, _job_id: str) -> None:
        """Wake the worker."""
        self._rung.set()
