"""What can only be asked for: how much waits, how upstreams stand, and whether what a process leans on answers.

Asked when somebody looks at the metrics, at most every few seconds, by a constant number of queries on indexes. Nothing
here waits long, and what did not answer is missing rather than told as it was.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Final, TypeVar

from app.assets.errors import StorageUnavailable
from app.assets.storage import Storage
from app.catalog.current import CurrentCatalog
from app.catalog.entries import Upstream
from app.catalog.keys import Keyring
from app.db.connection import Connection
from app.db.engine import Database, StoreUnavailable
from app.jobs import repository, upstream_states
from app.kit.metrics import Gauges, Readings, Registry
from app.routing.health import WHOLE, UpstreamState, breaker
from app.webhooks import repository as webhooks

FRESH_S: Final = 5.0
"""How long an answer is taken for true, however many ask; below the interval at which anybody scrapes."""
PATIENCE_S: Final = 2.0
"""After so long what has not answered counts as away; Prometheus itself gives up after ten seconds."""

DATABASE_UP: Final = "darkroom_database_up"
REDIS_UP: Final = "darkroom_redis_up"
STORAGE_FREE: Final = "darkroom_storage_free_bytes"
_OPEN: Final = "darkroom_jobs_open"
_OLDEST: Final = "darkroom_oldest_queued_job_seconds"
_ATTEMPTS: Final = "darkroom_upstream_attempts_open"
_CONCURRENCY: Final = "darkroom_upstream_max_concurrency"
_AVAILABLE: Final = "darkroom_upstream_available"
_SWITCH: Final = "darkroom_upstream_switch"
_BREAKER: Final = "darkroom_upstream_breaker"
_AWAY: Final = "darkroom_upstream_away_seconds"
_BACKLOG: Final = "darkroom_webhook_deliveries_pending"
_OVERDUE: Final = "darkroom_webhook_overdue_seconds"

_OF_EVERY_PROCESS: Final = {
    DATABASE_UP: "Whether the database answered this process in time.",
    REDIS_UP: "Whether Redis answered this process in time; absent without one.",
    STORAGE_FREE: "Bytes that are free where pictures are kept; absent where nobody can tell, as in a bucket.",
}
_OF_ALL_TOGETHER: Final = {
    _OPEN: "Jobs of all processes that are not final, by their status.",
    _OLDEST: "How long ago the oldest job that waits was submitted; 0 when none does.",
    _ATTEMPTS: "Attempts of all workers at an upstream whose outcome is awaited.",
    _CONCURRENCY: "How many of them the catalog allows.",
    _AVAILABLE: "1 while an upstream may be asked: it has its key, is switched on, and is not left alone.",
    _SWITCH: "1 for an operator's word on an upstream: `on`, `off` or `draining`.",
    _BREAKER: "1 for the state of an upstream's breaker: `closed`, `open` or `half_open`.",
    _AWAY: "For how much longer an upstream is left alone, by the failure kind that is why; absent when it is not.",
    _BACKLOG: "Deliveries of webhooks that are to be tried, or tried again.",
    _OVERDUE: "How long ago the next of them was due; 0 when none is.",
}
T = TypeVar("T")

_SWITCHES: Final = ("on", "off", "draining")
_BREAKERS: Final = ("closed", "open", "half_open")


class Survey:
    """Looks around for the metrics of one process."""

    def __init__(
        self,
        database: Database,
        catalog: CurrentCatalog,
        keys: Keyring,
        storage: Storage,
        redis: Callable[[], Awaitable[None]] | None,
        registry: Registry,
        *,
        of_all: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Register the gauges.

        Args:
            database: where jobs are.
            catalog: which upstreams there are.
            keys: which of them are on.
            storage: where pictures are kept.
            redis: asks whether Redis answers; None where there is none.
            registry: where the gauges are exported.
            of_all: whether to tell what holds for all processes together, too.
            clock: seconds that only grow; moved by tests.
        """
        self._database = database
        self._catalog = catalog
        self._keys = keys
        self._storage = storage
        self._redis = redis
        self._of_all = of_all
        self._clock = clock
        self._gauges = Gauges(_OF_EVERY_PROCESS | (_OF_ALL_TOGETHER if of_all else {}), registry)
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._asking: dict[str, asyncio.Task[Any]] = {}

    async def refresh(self) -> None:
        """Bring the gauges up to date. Takes `PATIENCE_S` at most, and never raises for what is away."""
        async with self._looking:
            if self._clock() - self._looked_at >= FRESH_S:
                self._gauges.show(await self._look())
                self._looked_at = self._clock()

    async def _look(self) -> Readings:
        database, redis, free_bytes = await asyncio.gather(
            self._within_patience("database", self._look_into_database),
            self._within_patience("redis", self._ask_redis),
            self._within_patience("storage", self._ask_storage),
        )
        found = dict(database or {DATABASE_UP: [({}, 0.0)]})
        if self._redis is not None:
            found[REDIS_UP] = [({}, float(redis is not None))]
        if free_bytes is not None:
            found[STORAGE_FREE] = [({}, float(free_bytes))]
        return found

    async def _look_into_database(self) -> Readings | None:
        try:
            async with self._database.reading() as connection:
                if self._of_all:
                    found = await self._everything(connection)
                else:
                    found = {}
                    await upstream_states.states_of(connection, ())
        except StoreUnavailable:
            return None
        return {**found, DATABASE_UP: [({}, 1.0)]}

    async def _everything(self, connection: Connection) -> Readings:
        upstreams = self._catalog.get().upstreams
        queued, in_progress, oldest_s = await repository.queue(connection)
        attempts = await repository.open_attempts(connection)
        pending, overdue_s = await webhooks.backlog(connection)
        states, at = await upstream_states.states_of(connection, upstreams)
        whole = {state.upstream: state for state in states if state.model == WHOLE}
        found: dict[str, list[tuple[dict[str, str], float]]] = {
            _OPEN: [({"status": "queued"}, queued), ({"status": "in_progress"}, in_progress)],
            _OLDEST: [({}, oldest_s)],
            _BACKLOG: [({}, pending)],
            _OVERDUE: [({}, overdue_s)],
        }
        for name, upstream in upstreams.items():
            readings = self._standing(upstream, whole.get(name), attempts.get(name, 0), at)
            for gauge, samples in readings.items():
                found.setdefault(gauge, []).extend(
                    ({"upstream": name, **labels}, value) for labels, value in samples
                )
        return found

    def _standing(
        self, upstream: Upstream, state: UpstreamState | None, attempts: int, at: datetime
    ) -> dict[str, list[tuple[dict[str, str], float]]]:
        switch = state.switch if state else "on"
        away_s = (state.away_until - at).total_seconds() if state and state.away_until else 0.0
        is_available = self._keys.missing(upstream) is None and switch == "on" and away_s <= 0
        stands = breaker(state, at)
        found: dict[str, list[tuple[dict[str, str], float]]] = {
            _ATTEMPTS: [({}, float(attempts))],
            _CONCURRENCY: [({}, float(upstream.max_concurrency))],
            _AVAILABLE: [({}, float(is_available))],
            _SWITCH: [({"switch": word}, float(word == switch)) for word in _SWITCHES],
            _BREAKER: [({"state": word}, float(word == stands)) for word in _BREAKERS],
        }
        if state is not None and away_s > 0:
            found[_AWAY] = [({"reason": state.away_for or "unknown"}, away_s)]
        return found

    async def _ask_redis(self) -> bool | None:
        if self._redis is None:
            return None
        try:
            await self._redis()
        except ConnectionError:
            return None
        return True

    async def _ask_storage(self) -> int | None:
        try:
            return await self._storage.free_bytes()
        except StorageUnavailable:
            return None

    async def _within_patience(self, name: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """What was asked for; None when it does not come in time.

        A question that hangs goes on, and is not asked again meanwhile: each may hold a thread or a connection.
        """
        asking = self._asking.get(name)
        if asking is None or asking.done():
            asking = self._asking[name] = asyncio.ensure_future(ask())
        await asyncio.wait({asking}, timeout=PATIENCE_S)
        return asking.result() if asking.done() else None
