"""Token buckets: the same arithmetic in a process and in Redis, and what holds while Redis is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.kit.limiter import Draw, LocalLimiter, RedisLimiter
from tests.harness.servers import RedisServer

PATIENT_S = 10.0
"""A busy test machine is not a Redis that is away."""


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def draw(amount: int = 1, *, per_minute: int = 6, bucket: str = "one") -> Draw:
    return Draw(bucket=bucket, per_minute=per_minute, amount=amount)


@pytest.fixture
async def limiter(redis_url: str) -> AsyncIterator[RedisLimiter]:
    made = RedisLimiter(redis_url, "this:1", budget_s=PATIENT_S)
    yield made
    await made.close()


async def test_a_full_bucket_gives_its_limit_at_once_and_then_makes_wait() -> None:
    limiter = LocalLimiter(clock=Clock())
    levels = [(await limiter.take([draw()]))[0] for _ in range(7)]
    assert [item.remaining for item in levels] == [5, 4, 3, 2, 1, 0, 0]
    assert [item.wait_s for item in levels] == pytest.approx([0, 0, 0, 0, 0, 0, 10])
    assert levels[0].full_in_s == pytest.approx(10)


async def test_a_bucket_fills_up_evenly_within_a_minute() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock=clock)
    await limiter.take([draw(6)])
    clock.now_s += 25
    assert (await limiter.take([draw()]))[0].remaining == 1
    clock.now_s += 600
    assert (await limiter.take([draw()]))[0].remaining == 5


async def test_a_draw_above_the_limit_waits_for_a_full_bucket_and_is_paid_off() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock=clock)
    assert (await limiter.take([draw(10)]))[0].wait_s == 0
    refused = (await limiter.take([draw()]))[0]
    assert refused.remaining == 0
    assert refused.wait_s == pytest.approx(50)


async def test_all_buckets_give_or_none_does() -> None:
    limiter = LocalLimiter(clock=Clock())
    await limiter.take([draw(6, bucket="empty")])
    roomy, _ = await limiter.take([draw(bucket="roomy"), draw(bucket="empty")])
    assert roomy.remaining == 6


async def test_what_is_given_back_can_be_taken_again_and_no_more() -> None:
    limiter = LocalLimiter(clock=Clock())
    await limiter.take([draw(4)])
    await limiter.take([draw(-4)])
    assert (await limiter.take([draw(-100)]))[0].remaining == 6


async def test_a_share_is_at_least_one() -> None:
    limiter = LocalLimiter(clock=Clock())
    assert limiter.take_share([draw()], processes=4)[0].remaining == 0
    assert limiter.take_share([draw(bucket="two")], processes=2)[0].per_minute == 3


async def test_redis_counts_as_a_process_does(limiter: RedisLimiter) -> None:
    levels = [(await limiter.take([draw(per_minute=3)]))[0] for _ in range(4)]
    assert [item.remaining for item in levels] == [2, 1, 0, 0]
    assert [item.wait_s > 0 for item in levels] == [False, False, False, True]
    assert levels[-1].wait_s == pytest.approx(20, abs=5)


async def test_redis_gives_all_or_nothing_and_takes_back(limiter: RedisLimiter) -> None:
    await limiter.take([draw(6, bucket="empty")])
    roomy, _ = await limiter.take([draw(bucket="roomy"), draw(bucket="empty")])
    assert roomy.remaining == 6
    await limiter.take([draw(-6, bucket="empty")])
    assert (await limiter.take([draw(bucket="empty")]))[0].remaining == 5


async def test_processes_share_a_bucket_and_know_of_each_other(limiter: RedisLimiter, redis_url: str) -> None:
    other = RedisLimiter(redis_url, "other:2", budget_s=PATIENT_S)
    try:
        takes = [side.take([draw(per_minute=10)]) for side in (limiter, other) for _ in range(10)]
        taken = [level for levels in await asyncio.gather(*takes) for level in levels]
        assert sum(item.wait_s == 0 for item in taken) == 10
    finally:
        await other.close()


async def test_without_redis_each_process_lets_its_share_through() -> None:
    clock = Clock()
    with RedisServer() as server:
        one = RedisLimiter(server.url, "one:1", budget_s=PATIENT_S, clock=clock)
        two = RedisLimiter(server.url, "two:2", budget_s=PATIENT_S, clock=clock)
        for process in (two, one):
            await process.take([draw(bucket="hello")])
        clock.now_s += 10
    taken = [(await one.take([draw(per_minute=10)]))[0] for _ in range(7)]
    assert [item.wait_s == 0 for item in taken] == [True] * 5 + [False] * 2
    clock.now_s += 5
    again = (await one.take([draw(5, per_minute=10)]))[0]
    assert again.wait_s > 0, "another look for Redis fills no bucket"
    await one.close()
    await two.close()


async def test_what_is_left_when_redis_goes_is_shared_and_not_begun_anew() -> None:
    clock = Clock()
    with RedisServer() as server:
        one = RedisLimiter(server.url, "one:1", budget_s=PATIENT_S, clock=clock)
        two = RedisLimiter(server.url, "two:2", budget_s=PATIENT_S, clock=clock)
        for process in (two, one):
            await process.take([draw(bucket="hello")])
        await two.take([draw(per_minute=10)])
        await one.take([draw(5, per_minute=10)])
    clock.now_s += 0.01
    taken = [(await one.take([draw(per_minute=10)]))[0] for _ in range(5)]
    assert [item.wait_s == 0 for item in taken] == [True, True, False, False, False]
    # It heard last of nine that were left; what the other has drawn since, nobody tells it.
    taken = [(await two.take([draw(per_minute=10)]))[0] for _ in range(6)]
    assert [item.wait_s == 0 for item in taken] == [True] * 4 + [False] * 2
    await one.close()
    await two.close()
