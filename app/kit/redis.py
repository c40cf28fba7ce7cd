"""Redis as a carrier of hints: events between processes, and arq as the doorbell.

Nothing here is ever waited for by a request, and nothing is lost with it: whoever misses a hint looks into the table.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from arq.connections import ArqRedis, RedisSettings
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from app.kit.backoff import full_jitter
from app.kit.events import Events, LocalEvents
from app.kit.ids import new_id
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

QUEUE: Final = "darkroom:doorbell"
FORWARD: Final = "forward"
"""The name of arq's task that hands a job id to the engine of its process."""
RING: Final = "ring"
"""The subject of the event that a job may be waiting."""
_CHANNEL: Final = "darkroom:events"
_RING_EVERY_S: Final = 0.05
_HINT_BUDGET_S: Final = 0.05
"""What a hint may take before it is dropped."""
_WAITING_AT_MOST: Final = 10_000
"""Hints that wait for their batch; with Redis hanging, more of them would only pile up."""
_CONNECTIONS: Final = 20


class Hints:
    """Sends hints in the background: at most one batch is under way, and what comes meanwhile makes the next."""

    def __init__(self, send: Callable[[Sequence[str]], Awaitable[object]], *, pause_s: float = 0.0) -> None:
        """`send` takes the hints of one batch, in their order; what Redis does not take at once is dropped.

        `pause_s` lies between two batches.
        """
        self._send = send
        self._pause_s = pause_s
        self._waiting: dict[str, None] = {}
        self._is_sending = False
        self._task: asyncio.Task[None] | None = None

    def add(self, hint: str) -> None:
        """Send a hint soon, once however often it is given until then; never waits and never raises."""
        if len(self._waiting) < _WAITING_AT_MOST:
            self._waiting[hint] = None
        if not self._is_sending:
            self._is_sending = True
            self._task = asyncio.create_task(self._send_all())

    async def close(self) -> None:
        """Let what is under way end; it is bounded by its budget."""
        self._pause_s = 0.0
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = list(self._waiting), {}
                try:
                    async with asyncio.timeout(_HINT_BUDGET_S):
                        await self._send(batch)
                except (RedisError, OSError, TimeoutError) as exc:
                    LOG.debug("hints.dropped", reason=type(exc).__name__, hints=len(batch))
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
        finally:
            # In the same breath as the last look, so that no hint is left behind.
            self._is_sending = False


class RedisEvents(LocalEvents):
    """Events between all processes that share a Redis; within this process they need none."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._redis = Redis(connection_pool=_pool(url))
        self._hints = Hints(self._tell)

    def publish(self, subject: str) -> None:
        """Tell this process at once and the others through Redis."""
        super().publish(subject)
        self._hints.add(subject)

    async def _tell(self, subjects: Sequence[str]) -> None:
        await self._redis.publish(_CHANNEL, "\n".join(subjects))

    async def run(self) -> None:
        """Listen for other processes, for ever; a Redis that goes away is come back to."""
        failures = 0
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(_CHANNEL)
                    failures = 0
                    await self._pass_on(channel.get_message)
            except (RedisError, OSError) as exc:
                failures += 1
                LOG.warning("events.disconnected", reason=type(exc).__name__)
                await asyncio.sleep(0.1 + full_jitter(failures, base_s=0.1, cap_s=2.0))

    async def _pass_on(self, get_message: Callable[..., Awaitable[dict[str, object] | None]]) -> None:
        while True:
            message = await get_message(ignore_subscribe_messages=True, timeout=None)
            if message is not None and isinstance(message["data"], bytes):
                for subject in message["data"].decode().split("\n"):
                    super().publish(subject)

    async def check(self) -> None:
        """Ask whether Redis answers.

        Raises:
            ConnectionError: it does not. Jobs go on all the same, a second later each.
        """
        try:
            await self._redis.ping()
        except RedisError as exc:
            raise ConnectionError(f"Redis does not answer: {type(exc).__name__}") from exc

    async def close(self) -> None:
        """Close every connection."""
        await self._hints.close()
        # A client that was handed its pool leaves it open.
        await self._redis.connection_pool.disconnect()


class ArqDoorbell:
    """Rings at one worker's door, through arq; one ring stands for all that come within a moment.

    arq looks into its queue every so often, so the workers are told by an event as well, which comes at once.
    """

    def __init__(self, url: str, events: Events) -> None:
        self._arq = arq_redis(url)
        self._events = events
        self._hints = Hints(self._ring, pause_s=_RING_EVERY_S)

    def ring(self, job_id: str) -> None:
        """Send the id to a worker."""
        self._events.publish(RING)
        self._hints.add(job_id)

    async def _ring(self, job_ids: Sequence[str]) -> None:
        # A fresh id for each ring: arq drops a task whose id it remembers.
        hint_id = new_id("ring")
        await self._arq.enqueue_job(FORWARD, job_ids[0], _job_id=hint_id, _queue_name=QUEUE)

    async def close(self) -> None:
        """Close every connection."""
        await self._hints.close()
        await self._arq.connection_pool.disconnect()


def arq_redis(url: str) -> ArqRedis:
    """A client for arq that connects when first used, and writes JSON: pickle would run what anybody put there."""
    return ArqRedis(
        connection_pool=_pool(url),
        job_serializer=serialize,
        job_deserializer=deserialize,
        default_queue_name=QUEUE,
    )


def serialize(document: dict[str, object]) -> bytes:
    """Write arq's task description as JSON."""
    return json.dumps(document, default=str).encode()


def deserialize(data: bytes) -> dict[str, object]:
    """Read what `serialize` wrote."""
    document: dict[str, object] = json.loads(data)
    return document


def arq_settings(url: str) -> RedisSettings:
    """What arq's worker connects with."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_timeout = 2
    settings.conn_retries = 1
    return settings


def _pool(url: str) -> ConnectionPool:
    # Without a read timeout, for a subscription waits in silence; hints have a budget of their own.
    pool = BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS, timeout=1, socket_connect_timeout=2, socket_keepalive=True
    )
    return speak_of_breaks(pool)


def speak_of_breaks(pool: ConnectionPool) -> ConnectionPool:
    """Make a pool's connections say that they broke in the client's own words, on every event loop."""
    is_tls = issubclass(pool.connection_class, SSLConnection)
    pool.connection_class = _TlsConnection if is_tls else _PlainConnection
    return pool


class _OwnWords:
    """Sends commands; uvloop says RuntimeError of a connection that broke, which nobody takes for an outage."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)  # type: ignore[misc] # of the class beside
        except RuntimeError as exc:
            raise RedisConnectionError("the connection broke before it was written to") from exc


class _PlainConnection(_OwnWords, Connection):
    """A connection of `redis://`."""


class _TlsConnection(_OwnWords, SSLConnection):
    """A connection of `rediss://`."""


def host_of(url: str) -> str:
    """Where a Redis is, without its password, for messages."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}"
