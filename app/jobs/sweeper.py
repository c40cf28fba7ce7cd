"""The sweeper: rescues jobs from dead workers, ends what is overdue, and deletes what has outlived its time.

Every part works in small batches that skip rows in use, so it can run on every worker and disturbs nobody.
"""

import asyncio
from typing import Final

from app.assets.errors import StorageUnavailable
from app.assets.records import Asset
from app.assets.repository import delete_assets, expired_assets, finished_inputs
from app.assets.service import PictureKeeper
from app.assets.storage import Storage
from app.db.engine import Database
from app.jobs import repository
from app.jobs.instruments import JobInstruments
from app.jobs.transitions import SWEEP_BATCH, Transitions
from app.jobs.waiting import announce
from app.kit.doorbell import Doorbell
from app.kit.events import Events
from app.kit.telemetry import get_logger
from app.webhooks.repository import purge_deliveries

LOG = get_logger(__name__)

PURGE_BATCH: Final = 200
"""Rows deleted in one transaction: a few milliseconds."""
PAUSE_S: Final = 0.05
"""Between two batches, so that a long backlog leaves the database to others most of the time."""


class Sweeper:
    """Looks after jobs and pictures that nobody holds."""

    def __init__(
        self,
        database: Database,
        transitions: Transitions,
        storage: Storage,
        keeper: PictureKeeper,
        events: Events,
        doorbell: Doorbell,
        instruments: JobInstruments,
    ) -> None:
        self._database = database
        self._transitions = transitions
        self._storage = storage
        self._keeper = keeper
        self._events = events
        self._doorbell = doorbell
        self._instruments = instruments

    async def sweep(self) -> int:
        """Rescue and end jobs until none is left to; how many were moved.

        Raises:
            StoreUnavailable: the database did not answer; the next sweep goes on.
        """
        moved = await self.call_off()
        # The embedded default is one process: a lease there lapses only with the process that would rescue it.
        if not self._database.is_sqlite:
            while rescued := await self._transitions.rescue():
                moved += len(rescued)
                self._instruments.rescued(len(rescued))
                for job_id in rescued:
                    LOG.warning("job.rescued", job_id=job_id)
                    self._doorbell.ring(job_id)
                if len(rescued) < SWEEP_BATCH:
                    break
        while ended := await self._transitions.end_overdue():
            moved += len(ended)
            for job_id in ended:
                announce(self._events, job_id, is_final=True)
                self._doorbell.ring(job_id)
            if len(ended) < SWEEP_BATCH:
                break
        return moved

    async def call_off(self) -> int:
        """Cancel jobs past the time limit that their client set; how many.

        Raises:
            StoreUnavailable: the database did not answer; the next call goes on.
        """
        cancelled = await self._transitions.call_off()
        for job_id in cancelled:
            LOG.info("job.called_off", job_id=job_id)
            self._events.publish(job_id)
            # A call that is still open wants to be followed.
            self._doorbell.ring(job_id)
        return len(cancelled)

    async def purge(self) -> int:
        """Delete pictures past their life, inputs of final jobs, lapsed idempotency keys and old deliveries.

        How many rows. A job whose pictures are gone keeps its record and its cost.

        Raises:
            StoreUnavailable: the database did not answer; the next purge goes on.
        """
        await asyncio.to_thread(self._keeper.clear_spool)
        deleted = await self._purge_pictures()
        for purge in (repository.purge_jobs, repository.purge_idempotency_keys, purge_deliveries):
            while True:
                async with self._database.transaction() as connection:
                    rows = await purge(connection, limit=PURGE_BATCH)
                deleted += rows
                if rows < PURGE_BATCH:
                    break
                await asyncio.sleep(PAUSE_S)
        return deleted

    async def _purge_pictures(self) -> int:
        deleted = 0
        for find in (expired_assets, finished_inputs):
            while True:
                async with self._database.reading() as connection:
                    found = await find(connection, limit=PURGE_BATCH)
                # The bytes first, outside of any transaction: deleting them again, here or elsewhere, is fine.
                gone = [asset.id for asset in found if await self._delete(asset)]
                async with self._database.transaction() as connection:
                    await delete_assets(connection, gone, team_id=None)
                deleted += len(gone)
                if len(found) < PURGE_BATCH or not gone:
                    break
                await asyncio.sleep(PAUSE_S)
        return deleted

    async def _delete(self, asset: Asset) -> bool:
        try:
            await self._storage.delete(asset.key)
        except StorageUnavailable as exc:
            LOG.warning("picture.not_deleted", file_id=asset.id, reason=str(exc))
            return False
        return True
