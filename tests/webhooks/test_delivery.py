"""Every end that is owed arrives at least once, signed, under one id, and no receiver is sent more than it takes."""

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from openai import OpenAI
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from app.api.rendering import Renderer
from app.db.engine import StoreUnavailable
from app.kit.http import GuardedClient
from app.kit.sealing import Sealer
from app.webhooks import delivery as delivery_module
from app.webhooks import repository
from app.webhooks.delivery import PER_RECEIVER, Deliverer, ShownJob
from app.webhooks.errors import ReceiverRefused
from app.webhooks.receivers import Receivers
from app.webhooks.records import DeliveryStatus, DisabledReason, EventType
from app.webhooks.schedule import DELAYS_S
from app.webhooks.vault import Vault
from tests.kit.scripted_server import Exchange, Request, scripted_server
from tests.webhooks.conftest import TEAM, Post, Receiver


async def secret_of(post: Post, team: str = "lab") -> str:
    """A secret that the team knows, and signs with from now on."""
    _, text = await post.parts.vault.rotate(await post.store.team(team))
    return text


def verified(request: Request, secret: str) -> dict[str, Any]:
    """What the public package makes of a request."""
    document: dict[str, Any] = Webhook(secret).verify(request.body, request.headers)
    return document


async def succeeded_job(post: Post, url: str) -> str:
    job_id = await post.store.job("lab", webhook_url=url, metadata={"order": "42"})
    (attempt,) = await post.store.open(await post.store.claim())
    await post.store.succeed(attempt)
    return job_id


async def test_the_public_packages_verify_what_arrives(post: Post, receiver: Receiver) -> None:
    secret = await secret_of(post)
    job_id = await succeeded_job(post, receiver.url)
    assert await post.send() == 1
    (request,) = receiver.requests
    assert request.line == "POST /hook?token=1 HTTP/1.1"
    event = verified(request, secret)
    assert (event["type"], event["object"], event["id"]) == (
        "job.succeeded",
        "event",
        request.headers["webhook-id"],
    )
    unwrapped = OpenAI(api_key="sk-made-up").webhooks.unwrap(request.body, request.headers, secret=secret)
    assert (unwrapped.type, unwrapped.id) == ("job.succeeded", event["id"])
    job = event["data"]
    assert (job["id"], job["object"], job["status"]) == (job_id, "image_job", "succeeded")
    assert job["metadata"] == {"order": "42"}
    assert job["result"]["data"] == [{"url": job["unsigned_urls"][0]}]
    assert event["sequence"] == (await post.store.look(job_id)).revision
    assert (await post.delivery()).status is DeliveryStatus.SUCCEEDED


async def test_the_body_has_neither_the_prompt_nor_a_byte_to_spare(post: Post, receiver: Receiver) -> None:
    await succeeded_job(post, receiver.url)
    await post.send()
    (request,) = receiver.requests
    assert b"a boat" not in request.body
    document = json.loads(request.body)
    assert request.body == json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    assert int(request.headers["content-length"]) == len(request.body) < 20_000
    assert request.headers["content-type"] == "application/json; charset=utf-8"


async def test_a_changed_body_or_a_stranger_is_found_out(post: Post, receiver: Receiver) -> None:
    secret, other = await secret_of(post), await secret_of(post, "strangers")
    await post.end_job(receiver.url)
    await post.send()
    (request,) = receiver.requests
    verified(request, secret)
    for body, key in ((request.body.replace(b"cancelled", b"succeeded"), secret), (request.body, other)):
        with pytest.raises(WebhookVerificationError):
            Webhook(key).verify(body, request.headers)


async def test_a_team_without_a_secret_is_signed_for_all_the_same(post: Post, receiver: Receiver) -> None:
    await post.end_job(receiver.url)
    await post.send()
    (request,) = receiver.requests
    assert request.headers["webhook-signature"].startswith("v1,")


async def test_what_is_delivered_is_not_sent_again(post: Post, receiver: Receiver) -> None:
    await post.end_job(receiver.url)
    assert [await post.send(), await post.send()] == [1, 0]
    await post.pass_time(86_400)
    assert await post.send() == 0
    assert len(receiver.requests) == 1


async def test_a_failing_receiver_is_tried_eight_times_within_a_day(post: Post, receiver: Receiver) -> None:
    receiver.status = 500
    job_id = await post.end_job(receiver.url)
    waited_s = []
    for number in range(1, len(DELAYS_S) + 1):
        assert await post.send() == 1, number
        assert await post.send() == 0, "not before its time"
        found = await post.delivery(job_id)
        assert found.tries == len(found.history) == number
        if number < len(DELAYS_S):
            assert found.status is DeliveryStatus.PENDING
            tried_at = found.history[-1]["at"]
            assert isinstance(tried_at, int)
            waited_s.append(found.next_at.timestamp() - tried_at)
            await post.pass_time(waited_s[-1])
    for waited, planned in zip(waited_s, DELAYS_S[1:], strict=True):
        assert planned * 0.8 <= waited <= planned * 1.1 + 1, (waited, planned)
    assert sum(waited_s) <= 86_400 + len(waited_s)
    final = await post.delivery(job_id)
    assert (final.status, final.finished_at is None) == (DeliveryStatus.FAILED, False)
    assert len(receiver.requests) == 8
    assert len(set(receiver.ids)) == 1
    await post.pass_time(86_400)
    assert await post.send() == 0


async def test_a_receiver_that_comes_back_gets_what_it_missed(post: Post, receiver: Receiver) -> None:
    receiver.status = 503
    await post.end_job(receiver.url)
    await post.send()
    receiver.status = 200
    await post.pass_time(6)
    await post.send()
    found = await post.delivery()
    assert (found.status, [entry["status"] for entry in found.history]) == (
        DeliveryStatus.SUCCEEDED,
        [503, 200],
    )
    assert len(set(receiver.ids)) == 1


async def test_a_redirect_is_a_failure_and_not_followed(post: Post, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 302, {"location": f"{receiver.server.url}/elsewhere"}
    await post.end_job(receiver.url)
    await post.send()
    assert (await post.delivery()).status is DeliveryStatus.PENDING
    assert len(receiver.requests) == 1


async def test_nobody_listening_is_a_failure(post: Post) -> None:
    async with scripted_server(_never) as gone:
        url = gone.url
    await post.end_job(url)
    await post.send()
    found = await post.delivery()
    assert (found.status, found.history[0]["status"]) == (DeliveryStatus.PENDING, None)
    assert found.history[0]["error"] == "ConnectError"


async def test_a_receiver_that_does_not_answer_is_given_up_in_time(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "TIMEOUT_S", 0.2)
    async with scripted_server(_never) as silent:
        await post.end_job(silent.url)
        await post.send()
    found = await post.delivery()
    assert (found.status, found.history[0]["error"]) == (DeliveryStatus.PENDING, "no answer within 0.2 s")


async def test_a_success_counts_though_its_body_never_ends(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(b"HTTP/1.1 200 X\r\ncontent-length: 1000\r\n\r\nthanks")
        await _never(exchange)

    monkeypatch.setattr(delivery_module, "TIMEOUT_S", 0.5)
    async with scripted_server(drip) as endless:
        await post.end_job(endless.url)
        await post.send()
    found = await post.delivery()
    assert (found.status, found.answer) == (DeliveryStatus.SUCCEEDED, "thanks")


@pytest.mark.parametrize(
    "asked, waits_s",
    [("120", 120), ("999999999", 86_400), ("-1", 5), ("soon", 5), ("1", 5)],
)
async def test_a_receiver_is_left_alone_as_long_as_it_asks_up_to_a_day(
    post: Post, receiver: Receiver, asked: str, waits_s: float
) -> None:
    receiver.status, receiver.headers = 429, {"retry-after": asked}
    await post.end_job(receiver.url)
    await post.send()
    found = await post.delivery()
    waited = found.next_at - found.created_at
    assert timedelta(seconds=waits_s * 0.9) <= waited <= timedelta(seconds=waits_s * 1.1 + 10)


async def test_410_stops_the_delivery_of_a_request(post: Post, receiver: Receiver) -> None:
    receiver.status = 410
    await post.end_job(receiver.url)
    await post.send()
    assert (await post.delivery()).status is DeliveryStatus.FAILED


async def test_410_disables_an_endpoint_and_tells_operators(post: Post, receiver: Receiver) -> None:
    endpoint_id = await post.endpoint(receiver.url)
    receiver.status = 500
    for _ in range(2):
        await post.end_job()
    await post.send()
    receiver.status = 410
    await post.end_job()
    await post.send()
    endpoint = await post.parts.webhooks.find_endpoint(endpoint_id)
    assert endpoint.disabled_reason is DisabledReason.GONE
    assert {item.status for item in await post.deliveries()} == {DeliveryStatus.FAILED}
    await post.end_job()
    assert len(await post.deliveries()) == 3
    await post.pass_time(86_400)
    assert await post.send() == 0


async def test_an_endpoint_that_only_fails_for_five_days_is_disabled(post: Post, receiver: Receiver) -> None:
    endpoint_id = await post.endpoint(receiver.url)
    receiver.status = 500
    for day in range(6):
        endpoint = await post.parts.webhooks.find_endpoint(endpoint_id)
        assert endpoint.is_in_use, day
        await post.end_job()
        await post.send()
        await post.pass_time(86_400)
    endpoint = await post.parts.webhooks.find_endpoint(endpoint_id)
    assert endpoint.disabled_reason is DisabledReason.FAILING
    assert {item.status for item in await post.deliveries()} == {DeliveryStatus.FAILED}


async def test_one_success_in_five_days_keeps_an_endpoint(post: Post, receiver: Receiver) -> None:
    endpoint_id = await post.endpoint(receiver.url)
    for status in (500, 500, 500, 200, 500, 500, 500):
        receiver.status = status
        await post.end_job()
        await post.send()
        await post.pass_time(86_400)
    assert (await post.parts.webhooks.find_endpoint(endpoint_id)).is_in_use


async def test_an_endpoint_that_was_deleted_meanwhile_is_sent_nothing(post: Post, receiver: Receiver) -> None:
    endpoint_id = await post.endpoint(receiver.url)
    await post.end_job()
    _, given_up = await post.parts.webhooks.delete_endpoint(endpoint_id)
    assert (given_up, await post.send()) == (1, 0)
    assert receiver.requests == []


async def test_an_endpoint_gets_its_own_teams_ends_and_the_events_it_wants(
    post: Post, receiver: Receiver
) -> None:
    theirs = await post.open_receiver()
    secret, other = await secret_of(post), await secret_of(post, "strangers")
    await post.endpoint(receiver.url, "lab", EventType.CANCELLED)
    await post.endpoint(theirs.url, "strangers", EventType.SUCCEEDED)
    ours = await post.end_job()
    await post.end_job(team="strangers")
    await post.send()
    assert [verified(request, secret)["data"]["id"] for request in receiver.requests] == [ours]
    assert theirs.requests == []
    with pytest.raises(WebhookVerificationError):
        verified(receiver.requests[0], other)


async def test_a_rotated_secret_signs_beside_the_new_one_for_a_day(post: Post, receiver: Receiver) -> None:
    oldest, old = await secret_of(post), await secret_of(post)
    new = await secret_of(post)
    await post.end_job(receiver.url)
    await post.send()
    (request,) = receiver.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    assert verified(request, new) == verified(request, old)
    with pytest.raises(WebhookVerificationError):
        verified(request, oldest)


async def test_a_leaked_secret_is_rotated_without_overlap(post: Post, receiver: Receiver) -> None:
    old = await secret_of(post)
    _, new = await post.parts.vault.rotate(TEAM, overlap_s=0)
    await post.end_job(receiver.url)
    await post.send()
    (request,) = receiver.requests
    verified(request, new)
    with pytest.raises(WebhookVerificationError):
        verified(request, old)


async def test_secrets_are_sealed_anew_and_still_sign(post: Post, receiver: Receiver) -> None:
    database, secret = post.parts.database, await secret_of(post)
    old, new = post.parts.settings.secret_keys[0], b"n" * 32
    assert await Vault(database, Sealer((new, old))).reseal() == (1, 1)
    assert await Vault(database, Sealer((new, old))).reseal() == (0, 1)
    vault = Vault(database, Sealer((new,)))
    await post.end_job(receiver.url)
    await _deliverer(post, vault=vault).deliver_due()
    verified(receiver.requests[0], secret)


async def test_without_its_secret_nothing_is_sent_and_nothing_is_lost(post: Post, receiver: Receiver) -> None:
    await secret_of(post)
    await post.end_job(receiver.url)
    stranger = _deliverer(post, vault=Vault(post.parts.database, Sealer((b"x" * 32,))))
    await stranger.deliver_due()
    assert receiver.requests == []
    await post.pass_time(61)
    await post.send()
    assert len(receiver.requests) == 1


async def test_a_worker_that_dies_before_it_writes_down_is_repeated_under_the_same_id(
    post: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object, **__: object) -> None:
        raise StoreUnavailable("gone")

    await post.end_job(receiver.url)
    with monkeypatch.context() as broken:
        broken.setattr(repository, "finish", gone)
        await post.send()
    assert await post.send() == 0, "its lease has not lapsed"
    await post.pass_time(61)
    assert await post.send() == 1
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1
    assert (await post.delivery()).status is DeliveryStatus.SUCCEEDED


async def test_a_late_failure_of_a_worker_that_lost_its_lease_does_not_count(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, answers = asyncio.Event(), asyncio.Event()
    seen = 0

    async def slow_then_good(exchange: Exchange) -> None:
        nonlocal seen
        await exchange.request()
        seen += 1
        if seen == 1:
            arrived.set()
            await answers.wait()
            await exchange.answer(410)
        else:
            await exchange.answer(200)

    async with scripted_server(slow_then_good) as server:
        await post.end_job(server.url)
        frozen = asyncio.create_task(_deliverer(post).deliver_due())
        await arrived.wait()
        await post.pass_time(61)
        assert await post.send() == 1
        answers.set()
        await frozen
    found = await post.delivery()
    assert (found.status, found.tries) == (DeliveryStatus.SUCCEEDED, 1)


async def test_a_receiver_has_four_tries_at_once_and_keeps_nobody_else_waiting(
    post: Post, receiver: Receiver
) -> None:
    full, release = asyncio.Event(), asyncio.Event()
    open_calls = most = 0

    async def hold(exchange: Exchange) -> None:
        nonlocal open_calls, most
        await exchange.request()
        open_calls += 1
        most = max(most, open_calls)
        if open_calls == PER_RECEIVER:
            full.set()
        await release.wait()
        open_calls -= 1
        await exchange.answer(200)

    async with scripted_server(hold) as slow:
        for _ in range(10):
            await post.end_job(slow.url)
        workers = [_deliverer(post) for _ in range(3)]
        sent = [asyncio.create_task(worker.deliver_due()) for worker in workers]
        await full.wait()
        await post.end_job(receiver.url)
        assert await post.send() == 1
        assert len(receiver.requests) == 1
        release.set()
        assert sum(await asyncio.gather(*sent)) == PER_RECEIVER
        while await post.send():
            pass
    assert most == PER_RECEIVER
    assert {item.status for item in await post.deliveries()} == {DeliveryStatus.SUCCEEDED}


async def test_several_workers_share_the_work_and_send_each_event_once(post: Post) -> None:
    receivers = [await post.open_receiver() for _ in range(3)]
    jobs = [await post.end_job(item.url) for _ in range(4) for item in receivers]
    workers = [_deliverer(post) for _ in range(3)]
    while sum(await asyncio.gather(*(worker.deliver_due() for worker in workers))):
        pass
    ids = [event_id for item in receivers for event_id in item.ids]
    assert len(ids) == len(set(ids)) == len(jobs)


async def test_the_loop_delivers_and_gives_back_what_it_cannot_finish(
    post: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "_STOP_WITHIN_S", 0.01)
    arrived = asyncio.Event()

    async def hang(exchange: Exchange) -> None:
        await exchange.request()
        arrived.set()
        await _never(exchange)

    async with scripted_server(hang) as silent:
        job_id = await post.end_job(silent.url)
        running = asyncio.create_task(post.parts.deliverer.run())
        await arrived.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    found = await post.delivery(job_id)
    assert (found.status, found.lease_until, found.tries) == (DeliveryStatus.PENDING, None, 0)


async def test_the_start_of_an_answer_is_kept_for_operators(post: Post, receiver: Receiver) -> None:
    receiver.status, receiver.body = 500, b"no\x00 \xff" + b"x " * 5_000
    await post.end_job(receiver.url)
    await post.send()
    answer = (await post.delivery()).answer
    assert answer is not None
    assert answer.startswith("no� �x x")
    assert len(answer) == 4096


async def test_a_receiver_that_says_back_what_it_was_sent_leaves_no_open_link(
    post: Post, receiver: Receiver
) -> None:
    receiver.status, receiver.body = (
        500,
        b"got http://x/v1/files/file_1/content?exp=1&kid=a&sig=0f3b9c27d1e84a65",
    )
    await post.end_job(receiver.url)
    await post.send()
    assert (await post.delivery()).answer == "got http://x/v1/files/file_1/content?exp=1&kid=a&sig=[redacted]"


async def test_a_url_that_leads_inside_is_refused_when_it_is_handed_in(post: Post) -> None:
    names = {"inside.test": ["10.0.0.1"], "mixed.test": ["93.184.216.34", "127.0.0.1"], "gone.test": []}
    client = _client(names)
    receivers = Receivers(client)
    for url in ("https://inside.test/", "https://mixed.test/", "https://user:pw@inside.test/", "file:///x"):
        with pytest.raises(ReceiverRefused):
            await receivers.admit(url, param="webhook_url", must_resolve=False)
    await receivers.admit("https://gone.test/", param="webhook_url", must_resolve=False)
    with pytest.raises(ReceiverRefused):
        await receivers.admit("https://gone.test/", param="url", must_resolve=True)
    await client.aclose()


async def test_a_name_that_leads_inside_by_now_is_not_sent_to(post: Post, receiver: Receiver) -> None:
    names = {"hook.test": ["93.184.216.34"]}
    client = _client(names)
    url = f"http://hook.test:{receiver.server.port}/"
    await Receivers(client).admit(url, param="webhook_url", must_resolve=True)
    names["hook.test"] = ["127.0.0.1"]
    await post.end_job(url)
    await _deliverer(post, client=client).deliver_due()
    await client.aclose()
    found = await post.delivery()
    assert receiver.requests == []
    assert (found.status, found.history[0]["error"]) == (
        DeliveryStatus.PENDING,
        "the address may not be reached",
    )


def _client(names: dict[str, list[str]]) -> GuardedClient:
    async def resolve(host: str, _: int) -> Sequence[str]:
        return names[host]

    return GuardedClient(resolver=resolve)


def _deliverer(post: Post, *, client: GuardedClient | None = None, vault: Vault | None = None) -> Deliverer:
    """Another worker on the same database."""
    parts = post.parts
    renderer = Renderer(parts.signer, parts.settings.public_url)

    async def show(job_id: str) -> ShownJob:
        view = await parts.jobs.view(job_id, None)
        return ShownJob(document=renderer.job(view), revision=view.job.revision)

    return Deliverer(
        parts.database, client or post.client, vault or parts.vault, show, jitter=random.Random(0)
    )


async def _never(_: Exchange) -> None:
    await asyncio.Event().wait()
