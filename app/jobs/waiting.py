"""Callers that wait for a job: woken by events within milliseconds, and by one look into the table a second.

One query a second covers every waiting caller of the process, however many there are; another renews the sign that
they are still held, so that the job of a caller whose process died can be adopted by the SDK's retry.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import update

from app.db.engine import Database, StoreUnavailable
from app.db.tables.jobs import jobs
from app.db.types import from_now
from app.jobs import repository
from app.kit.events import Events

LOOK_EVERY_S: Final = 1.0
"""How long a lost event can delay a caller."""
HELD_S: Final = 10.0
"""How long a caller counts as held after the last renewal; three renewals may fail."""
_RENEW_EVERY_LOOKS: Final = 3


def announce(events: Events, job_id: str, *, is_final: bool) -> None:
    """Tell whoever watches a job that it has changed; those who wait for its end hear of nothing else."""
    events.publish(job_id)
    if is_final:
        events.publish(_end_of(job_id))


def _end_of(job_id: str) -> str:
    return f"{job_id}:end"


class Waiters:
    """Everybody in this process who waits for a job to change."""

    def __init__(self, database: Database, events: Events) -> None:
        self._database = database
        self._events = events
        self._signals: dict[str, dict[asyncio.Event, bool]] = {}
        """Job -> signals, and whether each is for the end alone."""
        self._revisions: dict[str, int] = {}
        self._held: Counter[str] = Counter()

    @asynccontextmanager
    async def watching(
        self, job_id: str, *, is_caller: bool, until_end: bool = False
    ) -> AsyncIterator[asyncio.Event]:
        """Lend a signal that is set on each change of the job; clear it before looking at the job again.

        `is_caller`: a client is held for the result, as opposed to watching from the side. `until_end`: nothing but
        the end matters.
        """
        signal = asyncio.Event()
        self._signals.setdefault(job_id, {})[signal] = until_end
        if is_caller:
            self._held[job_id] += 1
        try:
            with self._events.listen(_end_of(job_id) if until_end else job_id, signal.set):
                yield signal
        finally:
            del self._signals[job_id][signal]
            if not self._signals[job_id]:
                del self._signals[job_id]
                self._revisions.pop(job_id, None)
            if is_caller:
                self._held[job_id] -= 1
                self._held += Counter()  # drops what is zero

    async def run(self) -> None:
        """Look into the table once a second, for ever."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            looks += 1
            try:
                await self._look()
                if looks % _RENEW_EVERY_LOOKS == 0:
                    await self._renew()
            except StoreUnavailable:
                continue  # the callers wait on; the next look tells them

    async def _look(self) -> None:
        if not self._signals:
            return
        async with self._database.reading() as connection:
            seen = await repository.statuses(connection, self._signals)
        for job_id, (status, revision) in seen.items():
            if self._revisions.get(job_id) != revision:
                self._revisions[job_id] = revision
                for signal, until_end in self._signals.get(job_id, {}).items():
                    if status.is_final or not until_end:
                        signal.set()

    async def _renew(self) -> None:
        if not self._held:
            return
        async with self._database.single() as connection:
            await connection.execute(
                update(jobs).where(jobs.c.id.in_(sorted(self._held))).values(waited_until=from_now(HELD_S))
            )
