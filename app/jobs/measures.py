"""What the attempts of all workers tell of each route's speed and success, looked up at most every few seconds."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import select, union_all

from app.db.connection import Connection
from app.db.engine import Database
from app.db.tables.attempts import attempts
from app.db.types import from_now, now
from app.domain.failures import FailureKind
from app.routing.measures import SAMPLES, WINDOW_S, Measure, Sample, measure
from app.routing.plan import Pair

FRESH_S: Final = 5.0
"""How long a process goes by what it has read; far below the time in which a median moves."""


class Measures:
    """Each route's measure, cached in this process so that a request costs no query of its own."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._read_at: dict[str, float] = {}
        self._found: dict[Pair, Measure] = {}
        self._reading = asyncio.Lock()

    async def of(self, upstreams: Collection[str]) -> Mapping[Pair, Measure]:
        """The measures of these upstreams' routes; a route that is absent is not measured."""
        if self._stale(upstreams):
            async with self._reading:
                stale = self._stale(upstreams)
                if stale:
                    await self._read(stale)
        return {pair: found for pair, found in self._found.items() if pair[0] in upstreams}

    def _stale(self, upstreams: Collection[str]) -> list[str]:
        oldest = self._clock() - FRESH_S
        return sorted(name for name in upstreams if self._read_at.get(name, float("-inf")) <= oldest)

    async def _read(self, upstreams: Collection[str]) -> None:
        async with self._database.reading() as connection:
            samples, at = await samples_of(connection, upstreams)
        by_pair: dict[Pair, list[Sample]] = defaultdict(list)
        for sample in samples:
            by_pair[sample.upstream, sample.model].append(sample)
        measured = {pair: measure(found, at) for pair, found in by_pair.items()}
        kept = {pair: found for pair, found in self._found.items() if pair[0] not in upstreams}
        self._found = kept | {pair: found for pair, found in measured.items() if found is not None}
        self._read_at |= dict.fromkeys(upstreams, self._clock())


async def samples_of(connection: Connection, upstreams: Collection[str]) -> tuple[list[Sample], datetime]:
    """The newest attempts of each upstream that have ended, `SAMPLES` at most, and the database's time.

    Read backwards from the index of an upstream's attempts by time: the cost does not grow with the table.
    """
    at = (await connection.execute(select(now()))).scalar_one()
    newest = [
        select(
            attempts.c.upstream,
            attempts.c.target["model"].as_string().label("model"),
            attempts.c.state,
            attempts.c.failure,
            attempts.c.opened_at,
            attempts.c.finished_at,
        )
        .where(attempts.c.upstream == name, attempts.c.opened_at > from_now(-WINDOW_S))
        .order_by(attempts.c.opened_at.desc())
        .limit(SAMPLES)
        .subquery()
        for name in sorted(upstreams)
    ]
    if not newest:
        return [], at
    rows = await connection.execute(union_all(*(select(one) for one in newest)))
    return [
        Sample(
            upstream=row.upstream,
            model=row.model,
            failure=None if row.failure is None else FailureKind(row.failure),
            took_s=(row.finished_at - row.opened_at).total_seconds(),
            ended_at=row.finished_at,
        )
        for row in rows
        if row.finished_at is not None
    ], at
