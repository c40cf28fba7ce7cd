"""The engine of a worker process: claims jobs, carries up to `slots` at once, renews their leases, drains.

It needs nothing but the database. The doorbell makes it look at once; without one it looks every second.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from app.db.engine import Database, StoreUnavailable
from app.jobs.instruments import JobInstruments
from app.jobs.runner import Runner, Work
from app.jobs.transitions import Transitions
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

LOOK_EVERY_S: Final = 1.0
"""How long a lost ring can delay a job."""
RENEWALS_PER_LEASE: Final = 3


class Heartbeat:
    """Renews the leases of a process from a thread and a connection of its own.

    An event loop that is stalled by a bug must not cost a lease whose call is being paid for.
    """

    def __init__(self, database_url: str, lease_s: float) -> None:
        self._url = database_url
        self._lease_s = lease_s
        self._held: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def hold(self, job_id: str, token: int) -> None:
        """Renew this lease from now on."""
        self._held[job_id] = token

    def release(self, job_id: str, token: int) -> None:
        """Renew this lease no longer."""
        if self._held.get(job_id) == token:
            del self._held[job_id]

    def stop(self) -> None:
        """Stop renewing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._renew_for_ever())

    async def _renew_for_ever(self) -> None:
        database = Database(self._url, pool_size=1)
        transitions = Transitions(database, lease_s=self._lease_s)
        try:
            while not await asyncio.to_thread(self._stop.wait, self._lease_s / RENEWALS_PER_LEASE):
                await self._renew(transitions)
        finally:
            await database.close()

    async def _renew(self, transitions: Transitions) -> None:
        held = dict(self._held)
        if not held:
            return
        try:
            kept = await transitions.renew(held)
        except StoreUnavailable as exc:
            LOG.warning("heartbeat.failed", reason=str(exc))
            return
        for job_id in held.keys() - kept.keys():
            # Somebody else has it by now; the runner learns it at its next step.
            self.release(job_id, held[job_id])


_CLAIM_AT_MOST: Final = 64


class Engine:
    """Carries jobs in this process, until it is drained."""

    def __init__(
        self,
        transitions: Transitions,
        work: Work,
        heartbeat: Heartbeat | None,
        rung: asyncio.Event,
        *,
        name: str,
        slots: int,
        instruments: JobInstruments,
    ) -> None:
        self._transitions = transitions
        self._work = work
        self._heartbeat = heartbeat
        self._rung = rung
        self._name = name
        self._slots = slots
        self._instruments = instruments
        self._running: set[asyncio.Task[None]] = set()
        self._looked_at_all = -LOOK_EVERY_S

    @property
    def running(self) -> int:
        """How many jobs this process carries."""
        return len(self._running)

    async def run(self) -> None:
        """Claim and carry jobs until `work.draining` is set; then return without waiting for those in flight."""
        self._instruments.work(lambda: self.running, self._slots)
        while not self._work.draining.is_set():
            self._rung.clear()
            await self._claim()
            await self._until_rung()

    async def drain(self, grace_s: float) -> bool:
        """Hand on what can be handed on, and wait up to `grace_s` for calls in flight; whether all ended."""
        self._work.draining.set()
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)
        return not self._running

    async def _claim(self) -> None:
        limit = _claim_limit(self._slots - len(self._running))
        if limit <= 0:
            return
        try:
            jobs = await self._transitions.claim(self._name, limit, with_final=self._looks_at_all())
        except StoreUnavailable as exc:
            LOG.warning("claim.failed", reason=str(exc))
            return
        self._instruments.claimed(len(jobs))
        if len(jobs) == limit:
            self._rung.set()  # there may be more
        for job in jobs:
            if self._heartbeat is not None:
                self._heartbeat.hold(job.id, job.lease_token)
            task = asyncio.create_task(Runner(job, self._work).run(), name=job.id)
            self._running.add(task)
            task.add_done_callback(self._ended(job.id, job.lease_token))

    def _looks_at_all(self) -> bool:
        """Whether to look for more than what a ring is for; once a second will do."""
        at = time.monotonic()
        is_due = at - self._looked_at_all >= LOOK_EVERY_S
        if is_due:
            self._looked_at_all = at
        return is_due

    def _ended(self, job_id: str, token: int) -> Callable[[asyncio.Task[None]], None]:
        def note(task: asyncio.Task[None]) -> None:
            if len(self._running) >= self._slots:
                # Whoever waited for a slot; for the others has been looked already.
                self._rung.set()
            self._running.discard(task)
            if self._heartbeat is not None:
                self._heartbeat.release(job_id, token)
            if not task.cancelled() and task.exception() is not None:
                # The lease lapses, another worker tries; after three such claims the job is stopped as poisoned.
                LOG.error("job.crashed", job_id=job_id, exc_info=task.exception())

        return note

    async def _until_rung(self) -> None:
        # Jitter keeps the workers of a fleet from looking all at once.
        timeout_s = LOOK_EVERY_S * random.uniform(0.8, 1.2)
        waits = {asyncio.ensure_future(self._rung.wait()), asyncio.ensure_future(self._work.draining.wait())}
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


def _claim_limit(free: int) -> int:
    """How many jobs to ask for: few different numbers, because each is a statement that the database has to plan."""
    return min(1 << (free.bit_length() - 1), _CLAIM_AT_MOST) if free > 0 else 0
