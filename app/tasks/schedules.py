"""What arq calls on a schedule. Each does nothing if another worker has just done it."""

from typing import Any

from app.db.engine import StoreUnavailable
from app.jobs.sweeper import Sweeper
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)


async def sweep(context: dict[Any, Any]) -> None:
    """Rescue jobs from dead workers and end what is overdue."""
    sweeper: Sweeper = context["sweeper"]
    try:
        await sweeper.sweep()
    except StoreUnavailable as exc:
        # The next call goes on; arq would log a trace, as for a bug.
        LOG.warning("sweep.failed", reason=str(exc))


async def purge(context: dict[Any, Any]) -> None:
    """Delete what has outlived its time."""
    sweeper: Sweeper = context["sweeper"]
    try:
        await sweeper.purge()
    except StoreUnavailable as exc:
        LOG.warning("purge.failed", reason=str(exc))
