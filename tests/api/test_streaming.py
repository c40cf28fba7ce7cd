"""`stream: true`: the events of OpenAI's Images API, and everything that may happen before, between and instead."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent
from pydantic import TypeAdapter

from app.domain.failures import FailureKind
from app.jobs.records import Attempt, Job
from tests.api.conftest import PNG, Gateway, serving
from tests.api.parts import API_KEY, AUTHORIZED
from tests.api.test_generations import PATH, PLAIN, delivery

STREAM: dict[str, Any] = {**PLAIN, "stream": True}
USAGE = {
    "input_tokens": 14,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 14},
    "output_tokens": 196,
    "total_tokens": 210,
}


def read(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream, without its comments."""
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        event, data = block.split("\n")
        found.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.fixture
async def sdk(address: str) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own client, on a real connection."""
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key=API_KEY, max_retries=0) as made:
        yield made


async def streamed(gateway: Gateway, client: httpx2.AsyncClient, body: dict[str, Any]) -> httpx2.Response:
    answer, _ = await asyncio.gather(client.post(PATH, json=body), gateway.finish_next())
    return answer


async def test_a_vendor_without_streaming_still_gives_a_completed_event(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    answer = await streamed(gateway, client, STREAM)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
    job_id = answer.headers["x-darkroom-job-id"]
    ((name, data),) = read(answer.text)
    assert name == "image_generation.completed"
    assert list(data) == [
        "type", "b64_json", "created_at", "size", "quality", "background", "output_format", "usage",
    ]  # fmt: skip
    TypeAdapter(ImageGenCompletedEvent).validate_python(data, strict=True)
    assert base64.b64decode(data["b64_json"]) == PNG
    assert data["usage"] == USAGE
    assert answer.text.endswith("\n\n")
    assert "[DONE]" not in answer.text
    assert await delivery(gateway, job_id) == (True, True)


async def test_usages_of_several_pictures_add_up(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    answer = await streamed(gateway, client, {**STREAM, "n": 3})
    events = [data for _, data in read(answer.text)]
    assert [item["type"] for item in events] == ["image_generation.completed"] * 3
    assert [item["usage"]["input_tokens"] for item in events] == [5, 5, 4]
    assert sum(item["usage"]["total_tokens"] for item in events) == 210
    for item in events:
        usage = item["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_a_usage_that_nobody_reported_is_null_and_not_made_up(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    async def finish() -> None:
        await gateway.worker.rung()
        await gateway.worker.complete(*await gateway.worker.start(), usage=None)

    answer, _ = await asyncio.gather(client.post(PATH, json=STREAM), finish())
    ((_, data),) = read(answer.text)
    assert data["usage"] is None


async def test_coarse_pictures_are_shown_while_the_job_is_worked_on(
    gateway: Gateway, sdk: AsyncOpenAI
) -> None:
    """Each is awaited before the next is made, so none is held back until the end."""
    asking = asyncio.ensure_future(
        sdk.images.generate(**PLAIN, stream=True, partial_images=2, size="1024x1024")
    )
    await gateway.worker.rung()
    job, attempt = await gateway.worker.start()
    await gateway.worker.show(attempt, 0, b"coarse")
    events = await asking
    first = await anext(events)
    await gateway.worker.show(attempt, 1, b"finer")
    second = await anext(events)
    await gateway.worker.complete(job, attempt)
    last = await anext(events)
    for index, (event, content) in enumerate(((first, b"coarse"), (second, b"finer"))):
        assert isinstance(event, ImageGenPartialImageEvent)
        TypeAdapter(ImageGenPartialImageEvent).validate_python(event.to_dict(), strict=True)
        assert not event.model_extra
        assert base64.b64decode(event.b64_json) == content
        assert (event.partial_image_index, event.size, event.quality) == (index, "1024x1024", "auto")
    assert isinstance(last, ImageGenCompletedEvent)
    assert not last.model_extra
    assert base64.b64decode(last.b64_json) == PNG
    assert await anext(events, None) is None


async def test_a_failure_before_the_first_event_is_an_ordinary_error(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    async def fail() -> None:
        await gateway.worker.rung()
        await gateway.worker.fail(FailureKind.REFUSED)

    answer, _ = await asyncio.gather(client.post(PATH, json=STREAM), fail())
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert answer.json()["error"]["code"] == "moderation_blocked"
    assert answer.headers["x-should-retry"] == "false"
    assert await delivery(gateway, answer.headers["x-darkroom-job-id"]) == (True, True)


async def test_a_bad_request_is_an_ordinary_error(client: httpx2.AsyncClient) -> None:
    answer = await client.post(PATH, json={**STREAM, "size": "1x1"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "size")


async def test_a_failure_after_the_first_event_raises_in_the_sdk(gateway: Gateway, sdk: AsyncOpenAI) -> None:
    asking = asyncio.ensure_future(sdk.images.generate(**PLAIN, stream=True, partial_images=1))
    await gateway.worker.rung()
    job, attempt = await gateway.worker.start()
    await gateway.worker.show(attempt, 0)
    events = await asking
    await anext(events)
    await gateway.worker.refuse(job, attempt, FailureKind.REFUSED)
    with pytest.raises(openai.APIError) as raised:
        await anext(events)
    assert raised.value.code == "moderation_blocked"


async def test_silence_is_broken_by_comments_which_commit_the_status(gateway: Gateway) -> None:
    async with (
        serving(gateway.holding(20, heartbeat_s=0.02)) as at,
        httpx2.AsyncClient(base_url=at, headers=AUTHORIZED) as client,
        client.stream("POST", PATH, json=STREAM) as answer,
    ):
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        assert await anext(lines) == ": keepalive"
        await gateway.worker.fail(FailureKind.REFUSED)
        rest = [line async for line in lines if line and not line.startswith(":")]
    assert rest[0] == "event: error"
    error = json.loads(rest[1].removeprefix("data: "))["error"]
    assert error["code"] == "moderation_blocked"
    assert error["job_id"] == answer.headers["x-darkroom-job-id"]
    assert len(rest) == 2


async def test_comments_come_well_within_the_sdks_own_read_timeout(gateway: Gateway) -> None:
    """The SDK announces how long it listens; a shorter time than the heartbeat's would end the call."""
    async with (
        serving(gateway.app) as at,
        AsyncOpenAI(base_url=f"{at}/v1", api_key=API_KEY, max_retries=0, timeout=1.0) as sdk,
    ):
        events = await sdk.images.generate(**PLAIN, stream=True)
        await gateway.worker.rung()
        await gateway.worker.finish()
        assert [event.type async for event in events] == ["image_generation.completed"]


async def test_the_end_of_the_wait_is_told_and_leaves_the_job_to_be_collected(
    gateway: Gateway, impatient: httpx2.AsyncClient
) -> None:
    answer = await impatient.post(PATH, json=STREAM)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "job_still_running")
    assert (await delivery(gateway, answer.headers["x-darkroom-job-id"]))[0] is False


async def test_the_end_of_the_wait_after_a_comment_is_an_error_event(gateway: Gateway) -> None:
    transport = httpx2.ASGITransport(app=gateway.holding(0.1, heartbeat_s=0.01))
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://darkroom.test", headers=AUTHORIZED
    ) as client:
        answer = await client.post(PATH, json=STREAM)
    assert answer.status_code == 200
    assert [data["error"]["code"] for _, data in read(answer.text)] == ["job_still_running"]
    assert (await delivery(gateway, answer.headers["x-darkroom-job-id"]))[0] is False


async def test_a_client_that_goes_away_leaves_the_job_to_its_retry(gateway: Gateway, address: str) -> None:
    body = {**STREAM, "partial_images": 1}

    async def show() -> tuple[Job, Attempt]:
        await gateway.worker.rung()
        job, attempt = await gateway.worker.start()
        await gateway.worker.show(attempt, 0)
        return job, attempt

    async with httpx2.AsyncClient(base_url=address, headers=AUTHORIZED) as client:
        showing = asyncio.ensure_future(show())
        async with client.stream("POST", PATH, json=body) as answer:
            assert await anext(answer.aiter_lines()) == "event: image_generation.partial_image"
        job, attempt = await showing
        retried, _ = await asyncio.gather(
            client.post(PATH, json=body, headers={"x-stainless-retry-count": "1"}),
            gateway.worker.complete(job, attempt),
        )
    assert retried.headers["x-darkroom-job-id"] == job.id
    assert [name for name, _ in read(retried.text)] == [
        "image_generation.partial_image",
        "image_generation.completed",
    ]


async def test_a_replay_streams_what_is_there(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    client.headers["idempotency-key"] = "once"
    first = await streamed(gateway, client, STREAM)
    second = await client.post(PATH, json=STREAM)
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.content == first.content


async def test_a_watcher_sees_coarse_pictures_and_takes_up_where_it_was_cut_off(
    gateway: Gateway, address: str, anonymous: httpx2.AsyncClient
) -> None:
    async with httpx2.AsyncClient(base_url=address, headers=AUTHORIZED) as client:
        asking = asyncio.ensure_future(client.post(PATH, json={**STREAM, "partial_images": 2}))
        await gateway.worker.rung()
        job, attempt = await gateway.worker.start()
        await gateway.worker.show(attempt, 0, b"coarse")
        await gateway.worker.show(attempt, 1, b"finer")
        await gateway.worker.complete(job, attempt)
        await asking
        whole = (await client.get(f"/v1/jobs/{job.id}/events")).text
        names, ids, documents = _numbered(whole)
        assert names == ["job.partial_image", "job.partial_image", "job.final"]
        assert [item["partial_image_index"] for item in documents[:2]] == [0, 1]
        assert (await anonymous.get(documents[1]["url"])).content == b"finer"
        rest = (await client.get(f"/v1/jobs/{job.id}/events", headers={"last-event-id": ids[0]})).text
        assert _numbered(rest) == (names[1:], ids[1:], documents[1:])


def _numbered(text: str) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    lines = text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    ids = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    documents = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return names, ids, documents
