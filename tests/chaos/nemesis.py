"""What goes wrong, and when: a plan drawn from a seed before the run, then carried out on a cluster."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from tests.chaos.cluster import Cluster, Member
from tests.chaos.faultproxy import (
    Bandwidth,
    Blackhole,
    CutAfterRequest,
    FaultProxy,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
)

_EVERY_S: Final = 1.3
"""Mean time between two faults; several may be under way at once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    at_s: float
    kind: str
    draw: float
    """0 to 1: picks the target among those that the kind may hit."""
    lasts_s: float
    """How long it lasts, where it lasts."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to go wrong."""

    weight: float
    lasts_s: tuple[float, float]
    inflict: Callable[[Cluster, Fault], Awaitable[bool]]
    """Do it and undo it; False when its target was already being hurt."""


def plan(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run, in the order of their beginning; the same for the same seed."""
    chosen = random.Random(seed)
    names = sorted(KINDS)
    weights = [KINDS[name].weight for name in names]
    faults: list[Fault] = []
    at_s = 0.0
    while (at_s := at_s + chosen.uniform(0.4, 1.6) * _EVERY_S) < seconds:
        (kind,) = chosen.choices(names, weights)
        faults.append(Fault(at_s, kind, chosen.random(), chosen.uniform(*KINDS[kind].lasts_s)))
    return faults


async def torment(cluster: Cluster, faults: list[Fault]) -> Counter[str]:
    """Carry a plan out; how many of each kind struck. Returns when the last one is over."""
    began = asyncio.get_running_loop().time()
    struck: Counter[str] = Counter()

    async def strike(fault: Fault) -> None:
        if await KINDS[fault.kind].inflict(cluster, fault):
            struck[fault.kind] += 1

    async with asyncio.TaskGroup() as all_faults:
        for fault in faults:
            await asyncio.sleep(max(began + fault.at_s - asyncio.get_running_loop().time(), 0.0))
            all_faults.create_task(strike(fault))
    return struck


# -- Processes of ours.


def _on(
    members: Callable[[Cluster], list[Member]], do: Callable[[Cluster, Member, float], Awaitable[None]]
) -> Callable[[Cluster, Fault], Awaitable[bool]]:
    async def inflict(cluster: Cluster, fault: Fault) -> bool:
        targets = members(cluster)
        target = targets[int(fault.draw * len(targets))]
        if target.is_busy or target.ended_with() is not None:
            return False
        target.is_busy = True
        try:
            await do(cluster, target, fault.lasts_s)
        finally:
            target.is_busy = False
        return True

    return inflict


async def _kill(_cluster: Cluster, member: Member, _lasts_s: float) -> None:
    await member.kill()
    member.start()


async def _freeze(_cluster: Cluster, member: Member, lasts_s: float) -> None:
    member.freeze()
    await asyncio.sleep(lasts_s)
    member.thaw()


async def _roll(cluster: Cluster, member: Member, _lasts_s: float) -> None:
    await cluster.roll(member)


# -- Stores.

_POSTGRES: Final = "postgres"
_REDIS: Final = "redis"


def _alone(
    store: str, do: Callable[[Cluster, float], Awaitable[None]]
) -> Callable[[Cluster, Fault], Awaitable[bool]]:
    async def inflict(cluster: Cluster, fault: Fault) -> bool:
        if store in cluster.hurt:
            return False
        cluster.hurt.add(store)
        try:
            await do(cluster, fault.lasts_s)
        finally:
            cluster.hurt.discard(store)
        return True

    return inflict


async def _postgres_immediate(cluster: Cluster, _lasts_s: float) -> None:
    await asyncio.to_thread(cluster.postgres.restart, "immediate")


async def _postgres_fast(cluster: Cluster, _lasts_s: float) -> None:
    await asyncio.to_thread(cluster.postgres.restart, "fast")


async def _postgres_kill(cluster: Cluster, lasts_s: float) -> None:
    await asyncio.to_thread(cluster.postgres.kill)
    await asyncio.sleep(lasts_s)
    await asyncio.to_thread(cluster.postgres.start)


async def _postgres_pause(cluster: Cluster, lasts_s: float) -> None:
    await asyncio.to_thread(cluster.postgres.pause)
    await asyncio.sleep(lasts_s)
    await asyncio.to_thread(cluster.postgres.resume)


async def _redis_kill(cluster: Cluster, lasts_s: float) -> None:
    await asyncio.to_thread(cluster.redis.kill)
    await asyncio.sleep(lasts_s)
    await asyncio.to_thread(cluster.redis.start)


async def _redis_restart(cluster: Cluster, _lasts_s: float) -> None:
    await asyncio.to_thread(cluster.redis.restart)


async def _redis_flushall(cluster: Cluster, _lasts_s: float) -> None:
    await asyncio.to_thread(cluster.redis.flushall)


async def _redis_pause(cluster: Cluster, lasts_s: float) -> None:
    cluster.redis.pause()
    await asyncio.sleep(lasts_s)
    cluster.redis.resume()


# -- Edges.


def _edge(
    prefix: str, spoil: Callable[[FaultProxy], AbstractContextManager[object]]
) -> Callable[[Cluster, Fault], Awaitable[bool]]:
    """Spoil one of the edges whose name holds `prefix`."""

    async def inflict(cluster: Cluster, fault: Fault) -> bool:
        names = sorted(name for name in cluster.edges if prefix in name)
        with spoil(cluster.edges[names[int(fault.draw * len(names))]]):
            await asyncio.sleep(fault.lasts_s)
        return True

    return inflict


async def _cut(cluster: Cluster, fault: Fault) -> bool:
    names = sorted(cluster.edges)
    return cluster.edges[names[int(fault.draw * len(names))]].cut() > 0


def _is_commit(data: bytes) -> bool:
    return b"COMMIT" in data


def _is_post(data: bytes) -> bool:
    return data.startswith(b"POST ")


def _slow(proxy: FaultProxy) -> AbstractContextManager[object]:
    return proxy.toxic(Latency(0.2, 0.15))


KINDS: Final[Mapping[str, Kind]] = {
    "kill -9 worker": Kind(16, (0, 0), _on(lambda cluster: cluster.workers, _kill)),
    "kill -9 api": Kind(6, (0, 0), _on(lambda cluster: cluster.apis, _kill)),
    "freeze worker": Kind(16, (2, 9), _on(lambda cluster: cluster.workers, _freeze)),
    "freeze api": Kind(5, (2, 9), _on(lambda cluster: cluster.apis, _freeze)),
    "SIGTERM worker": Kind(5, (0, 0), _on(lambda cluster: cluster.workers, _roll)),
    "SIGTERM api": Kind(4, (0, 0), _on(lambda cluster: cluster.apis, _roll)),
    "postgres immediate": Kind(3, (0, 0), _alone(_POSTGRES, _postgres_immediate)),
    "postgres fast": Kind(3, (0, 0), _alone(_POSTGRES, _postgres_fast)),
    "postgres kill -9": Kind(2, (0, 2), _alone(_POSTGRES, _postgres_kill)),
    "postgres freeze": Kind(2, (1, 5), _alone(_POSTGRES, _postgres_pause)),
    "redis kill -9": Kind(3, (0.5, 3), _alone(_REDIS, _redis_kill)),
    "redis restart": Kind(2, (0, 0), _alone(_REDIS, _redis_restart)),
    "redis FLUSHALL": Kind(4, (0, 0), _alone(_REDIS, _redis_flushall)),
    "redis freeze": Kind(3, (1, 4), _alone(_REDIS, _redis_pause)),
    "cut an edge": Kind(10, (0, 0), _cut),
    "lose COMMIT answers": Kind(
        8, (2, 4), _edge(">postgres", lambda proxy: proxy.toxic(CutAfterRequest(_is_commit, times=8)))
    ),
    "lose vendor's answers": Kind(
        3, (2, 4), _edge("worker>openai", lambda proxy: proxy.toxic(CutAfterRequest(_is_post, times=2)))
    ),
    "lose order numbers": Kind(
        3, (2, 4), _edge("worker>therouter", lambda proxy: proxy.toxic(CutAfterRequest(_is_post, times=2)))
    ),
    "lose our answers": Kind(
        4, (2, 4), _edge("client>", lambda proxy: proxy.toxic(CutAfterRequest(_is_post, times=3)))
    ),
    "database out of reach": Kind(4, (1, 5), _edge(">postgres", lambda proxy: proxy.toxic(Blackhole()))),
    "database refuses": Kind(3, (1, 3), _edge(">postgres", lambda proxy: proxy.down())),
    "redis out of reach": Kind(2, (1, 4), _edge(">redis", lambda proxy: proxy.toxic(Blackhole("up")))),
    "vendor out of reach": Kind(2, (1, 4), _edge("worker>", lambda proxy: proxy.toxic(Timeout(2.0)))),
    "vendor refuses": Kind(2, (1, 3), _edge("worker>", lambda proxy: proxy.down())),
    "slow edge": Kind(4, (2, 5), _edge(">", _slow)),
    "thin edge": Kind(2, (2, 4), _edge(">", lambda proxy: proxy.toxic(Bandwidth(40_000)))),
    "sliced edge": Kind(2, (2, 4), _edge(">", lambda proxy: proxy.toxic(Slicer(700, 0.002)))),
    "late goodbyes": Kind(1, (2, 4), _edge(">", lambda proxy: proxy.toxic(SlowClose(1.0)))),
    "short answers": Kind(2, (1, 3), _edge("worker>", lambda proxy: proxy.toxic(LimitData(9_000)))),
    "reset answers": Kind(2, (1, 3), _edge("client>", lambda proxy: proxy.toxic(ResetPeer(6_000)))),
}
"""Every way to go wrong, weighted after how often it would find something."""
