"""Token buckets: so many a minute, and as many at once. Shared through Redis, or of one process alone.

While Redis is away each process lets its share through: the limit, and what it last knew to be left of it, over the
number of processes that it last knew of.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from app.kit.redis import speak_of_breaks
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

WINDOW_S: Final = 60.0
"""In which a bucket that is empty fills up."""
_BUDGET_S: Final = 0.5
"""Redis answers within a millisecond, but a rush of requests is slow to hear it: a limit is exact only by its word."""
_AWAY_S: Final = 1.0
"""How long it is then not asked, so that not every request waits in vain."""
_CONNECTIONS: Final = 20
_BUCKETS_AT_MOST: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What is to be taken out of one bucket."""

    bucket: str
    per_minute: int
    amount: int
    """More than `per_minute` is let through when the bucket is full, and then paid off. Below zero gives back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How a bucket stands after a draw, or after one that was refused."""

    bucket: str
    per_minute: int
    remaining: int
    """What can still be taken at once."""
    full_in_s: float
    wait_s: float
    """Until what was asked for can be taken; 0 when it was there."""


class Limiter(Protocol):
    """Takes out of several buckets at once, all or nothing."""

    async def take(self, draws: Sequence[Draw]) -> list[Level]:
        """Take every draw unless one has to wait; the levels are in the order of the draws. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class _Bucket:
    tokens: float
    at_s: float


class LocalLimiter:
    """Buckets of this process. With `share` processes each bucket holds that part of its limit, at least one."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with full buckets; `clock` gives seconds that only grow."""
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    async def take(self, draws: Sequence[Draw]) -> list[Level]:
        """Take every draw unless one has to wait."""
        return self.take_share(draws, processes=1)

    def take_share(self, draws: Sequence[Draw], *, processes: int) -> list[Level]:
        """As `take`, for one of so many processes."""
        at_s = self._clock()
        shares = [replace(draw, per_minute=max(draw.per_minute // processes, 1)) for draw in draws]
        tokens = [self._tokens(draw, at_s) for draw in shares]
        waits = [wait_s(draw, left) for draw, left in zip(shares, tokens, strict=True)]
        if not any(waits):
            tokens = [
                min(left - draw.amount, draw.per_minute) for draw, left in zip(shares, tokens, strict=True)
            ]
            self._prune()
            self._buckets |= {
                draw.bucket: _Bucket(left, at_s) for draw, left in zip(shares, tokens, strict=True)
            }
        return [level(*item) for item in zip(shares, tokens, waits, strict=True)]

    def learn(self, tokens: Mapping[str, float]) -> None:
        """Let these buckets hold so much from now on, whatever they held."""
        at_s = self._clock()
        self._prune()
        self._buckets |= {bucket: _Bucket(held, at_s) for bucket, held in tokens.items()}

    def _tokens(self, draw: Draw, at_s: float) -> float:
        bucket = self._buckets.get(draw.bucket)
        if bucket is None:
            return draw.per_minute
        return min(bucket.tokens + (at_s - bucket.at_s) * draw.per_minute / WINDOW_S, draw.per_minute)

    def _prune(self) -> None:
        # A bucket that nobody drew from for a minute is full, which is what an absent one is.
        if len(self._buckets) >= _BUCKETS_AT_MOST:
            since_s = self._clock() - WINDOW_S
            self._buckets = {name: item for name, item in self._buckets.items() if item.at_s > since_s}


def wait_s(draw: Draw, tokens: float) -> float:
    """How long until a draw can be taken from a bucket with so many tokens; 0 when it can be now."""
    wanted = min(draw.amount, draw.per_minute)
    return max(wanted - tokens, 0.0) * WINDOW_S / draw.per_minute


def level(draw: Draw, tokens: float, waits_s: float) -> Level:
    """Tell how a bucket stands."""
    return Level(
        bucket=draw.bucket,
        per_minute=draw.per_minute,
        # A clock that counts in fractions leaves 1.9999999 where 2 is meant.
        remaining=max(math.floor(tokens + 1e-6), 0),
        full_in_s=(draw.per_minute - tokens) * WINDOW_S / draw.per_minute,
        wait_s=waits_s,
    )


# By Redis' own clock, so that processes need not agree on the time. The same arithmetic as above: what is taken is
# decided over all buckets before any of them is written. Every process that draws is counted for a minute.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local window = tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local answer = {tostring(redis.call('ZCARD', KEYS[1]))}
local left, may = {}, true
for i = 2, #KEYS do
  local limit, amount = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local bucket = redis.call('HMGET', KEYS[i], 'tokens', 'at')
  local tokens = limit
  if bucket[1] then
    tokens = math.min(tonumber(bucket[1]) + math.max(now - tonumber(bucket[2]), 0) * limit / window, limit)
  end
  left[i] = tokens
  if math.min(amount, limit) - tokens > 0.000001 then may = false end
end
for i = 2, #KEYS do
  local limit, amount = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local wait = 0
  if may then
    left[i] = math.min(left[i] - amount, limit)
    redis.call('HSET', KEYS[i], 'tokens', string.format('%.6f', left[i]), 'at', string.format('%.6f', now))
    redis.call('PEXPIRE', KEYS[i], math.ceil((limit - left[i]) * window / limit * 1000) + 1000)
  else
    wait = math.max(math.min(amount, limit) - left[i], 0) * window / limit
  end
  answer[#answer + 1] = string.format('%.6f', left[i])
  answer[#answer + 1] = string.format('%.6f', wait)
end
return answer
"""
_PROCESSES: Final = "darkroom:limiter:processes"
_PREFIX: Final = "darkroom:limiter:bucket:"


class RedisLimiter:
    """Buckets that all processes share; of this process alone while Redis is away."""

    def __init__(
        self,
        url: str,
        process: str,
        *,
        budget_s: float = _BUDGET_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect when first used.

        Args:
            url: of the Redis that all processes share.
            process: the name under which this process is counted.
            budget_s: what Redis may take before it counts as away.
            clock: seconds that only grow; moved by tests.
        """
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=budget_s,
            socket_connect_timeout=2,
            socket_keepalive=True,
        )
        self._redis = Redis(connection_pool=speak_of_breaks(pool))
        self._script = self._redis.register_script(_SCRIPT)
        self._process = process
        self._budget_s = budget_s
        self._clock = clock
        self._local = LocalLimiter(clock=clock)
        self._processes = 1
        self._away_until_s = -math.inf

    async def take(self, draws: Sequence[Draw]) -> list[Level]:
        """Take every draw unless one has to wait; from this process's share while Redis does not answer."""
        if not draws:
            return []
        answer = await self._ask(draws) if self._clock() >= self._away_until_s else None
        if answer is None:
            return self._local.take_share(draws, processes=self._processes)
        processes, *numbers = [float(item) for item in answer]
        self._processes = max(int(processes), 1)
        tokens, waits = numbers[::2], numbers[1::2]
        # What is left when Redis goes is shared, too: every process would else begin with a full bucket.
        left = {draw.bucket: held / self._processes for draw, held in zip(draws, tokens, strict=True)}
        self._local.learn(left)
        return [level(*item) for item in zip(draws, tokens, waits, strict=True)]

    async def _ask(self, draws: Sequence[Draw]) -> list[bytes] | None:
        keys = [_PROCESSES, *(_PREFIX + draw.bucket for draw in draws)]
        numbers = [number for draw in draws for number in (draw.per_minute, draw.amount)]
        try:
            async with asyncio.timeout(self._budget_s):
                answer: Any = await self._script(keys=keys, args=[self._process, WINDOW_S, *numbers])
        except (RedisError, OSError, TimeoutError) as exc:
            LOG.warning("limiter.alone", reason=type(exc).__name__, processes=self._processes)
            self._away_until_s = self._clock() + _AWAY_S
            return None
        return list(answer)

    async def close(self) -> None:
        """Close every connection."""
        # A client that was handed its pool leaves it open.
        await self._redis.connection_pool.disconnect()
