"""What arq calls on a schedule. Each does nothing if another worker has just done it."""

from typing import Any

from app.jobs.sweeper import Sweeper


async def sweep(context: dict[Any, Any]) -> None:
    """Rescue jobs from dead workers and end what is overdue."""
    sweeper: Sweeper = context["sweeper"]
    await sweeper.sweep()


async def purge(context: dict[Any, Any]) -> None:
    """Delete what has outlived its time."""
    sweeper: Sweeper = context["sweeper"]
    await sweeper.purge()
