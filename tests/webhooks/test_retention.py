"""Deliveries are deleted a month after they ended, an event with its last one, and none that waits."""

import asyncio

from sqlalchemy import func, select

from app.db.tables.webhook_events import webhook_events
from app.webhooks import repository
from app.webhooks.records import DeliveryStatus
from app.webhooks.schedule import KEPT_S
from tests.webhooks.conftest import Post, Receiver


async def events_left(post: Post) -> int:
    async with post.parts.database.reading() as connection:
        query = select(func.count()).select_from(webhook_events)
        return (await connection.execute(query)).scalar_one()


async def test_what_was_delivered_a_month_ago_is_deleted(post: Post, receiver: Receiver) -> None:
    await post.endpoint(receiver.url)
    await post.end_job(receiver.url)
    assert await post.send() == 2
    await post.pass_time(KEPT_S - 60)
    await post.parts.sweeper.purge()
    assert (await events_left(post), len(await post.deliveries())) == (1, 2)
    await post.pass_time(120)
    await post.parts.sweeper.purge()
    assert (await events_left(post), len(await post.deliveries())) == (0, 0)


async def test_what_was_given_up_a_month_ago_is_deleted(post: Post, receiver: Receiver) -> None:
    receiver.status = 410
    await post.end_job(receiver.url)
    await post.send()
    assert (await post.delivery()).status is DeliveryStatus.FAILED
    await post.pass_time(KEPT_S + 60)
    await post.parts.sweeper.purge()
    assert (await events_left(post), await post.deliveries()) == (0, [])


async def test_what_waits_is_kept_however_old_it_is(post: Post, receiver: Receiver) -> None:
    await post.endpoint(receiver.url)
    await post.end_job((await post.open_receiver()).url)
    first, second = await post.deliveries()
    async with post.parts.database.transaction() as connection:
        await repository.finish(connection, first.id, DeliveryStatus.SUCCEEDED, history=[], answer=None)
    await post.pass_time(2 * KEPT_S)
    await post.parts.sweeper.purge()
    assert [item.id for item in await post.deliveries()] == [second.id]
    assert await events_left(post) == 1
    assert await post.send() == 1


async def test_an_event_that_was_sent_again_is_kept_from_then_on(post: Post, receiver: Receiver) -> None:
    await post.end_job(receiver.url)
    await post.send()
    await post.pass_time(KEPT_S - 60)
    again = await post.parts.webhooks.resend((await post.delivery()).id)
    await post.pass_time(120)
    await post.parts.sweeper.purge()
    assert await events_left(post) == 1
    assert await post.send() == 1
    await post.parts.sweeper.purge()
    assert again.id in {item.id for item in await post.deliveries()}
    await post.pass_time(KEPT_S + 60)
    await post.parts.sweeper.purge()
    assert (await events_left(post), await post.deliveries()) == (0, [])


async def test_workers_that_delete_at_the_same_time_leave_nothing(post: Post, receiver: Receiver) -> None:
    for path in ("one", "two"):
        await post.endpoint(f"{receiver.url}&to={path}")
    for _ in range(5):
        await post.end_job()
    while await post.send():
        pass
    await post.pass_time(KEPT_S + 60)

    async def purge_one() -> int:
        async with post.parts.database.transaction() as connection:
            return await repository.purge_deliveries(connection, limit=1)

    assert sum(await asyncio.gather(*(purge_one() for _ in range(10)))) <= 10
    await post.parts.sweeper.purge()
    assert (await events_left(post), await post.deliveries()) == (0, [])
