"""Keeps the sweeper going in a process, whether or not anybody's schedule calls it."""

import asyncio
from typing import Final

from app.db.engine import StoreUnavailable
from app.jobs.sweeper import Sweeper
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

_PURGE_EVERY_S: Final = 60.0
_CALL_OFF_EVERY_S: Final = 1.0
"""How late a waiting job may be cancelled that its client gave a time limit."""


async def keep_sweeping(sweeper: Sweeper, *, every_s: float) -> None:
    """Sweep and purge for ever. Where arq's schedule does the same, this finds nothing left to do."""
    loop = asyncio.get_running_loop()
    purge_at = sweep_at = loop.time()
    while True:
        try:
            if loop.time() >= sweep_at:
                sweep_at = loop.time() + every_s
                await sweeper.sweep()
            else:
                await sweeper.call_off()
            if loop.time() >= purge_at:
                purge_at = loop.time() + _PURGE_EVERY_S
                await sweeper.purge()
        except StoreUnavailable as exc:
            LOG.warning("sweep.failed", reason=str(exc))
        await asyncio.sleep(min(_CALL_OFF_EVERY_S, every_s))
