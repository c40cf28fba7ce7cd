"""From the call for a picture to the receiver that is told of it, by the loop that every worker runs."""

import asyncio
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from standardwebhooks import Webhook

from app.kit.http import GuardedClient, Timeouts
from app.main import build_app
from tests.docs.pages import DOCS, blocks
from tests.harness.processes import free_port, wait_until
from tests.kit.scripted_server import Exchange, scripted_server
from tests.kitchen import API_KEY, catalog_of, open_kitchen, write_settings
from tests.simulators.openai import OpenAi
from tests.webhooks.conftest import TEAM, Post


@pytest.mark.journey
async def test_a_picture_that_is_made_is_told_with_a_link_that_opens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str
) -> None:
    told = asyncio.Event()

    async def receive(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(204)
        told.set()

    async with AsyncExitStack() as closing:
        vendor = await closing.enter_async_context(OpenAi(api_key="sk-made-up"))
        receiver = await closing.enter_async_context(scripted_server(receive))
        monkeypatch.setenv("OPENAI_TEST_KEY", "sk-made-up")
        settings = write_settings(
            monkeypatch, tmp_path, catalog_of({"openai": vendor}), database_url=database_url
        )
        kitchen = await closing.enter_async_context(open_kitchen(settings))
        _, secret = await kitchen.parts.vault.rotate(kitchen.team_id)
        client = await closing.enter_async_context(
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=build_app(kitchen.parts)),
                base_url="http://127.0.0.1:8080",
                headers={"authorization": f"Bearer {API_KEY}"},
            )
        )
        made = await client.post(
            "/v1/images/generations?async=true",
            json={"model": "gpt-image-2", "prompt": "a canary of a prompt", "webhook_url": receiver.url},
        )
        assert made.status_code == 202, made.text
        await asyncio.wait_for(told.wait(), 20)
        (request,) = receiver.requests
        event = Webhook(secret).verify(request.body, request.headers)
        assert (event["type"], event["data"]["id"]) == ("job.succeeded", made.json()["id"])
        assert b"canary" not in request.body
        assert event["data"] == (await client.get(f"/v1/jobs/{made.json()['id']}")).json()
        picture = await client.get(event["data"]["unsigned_urls"][0], headers={"authorization": ""})
        assert picture.status_code == 200
        assert picture.content.startswith(b"\x89PNG")


async def test_the_receiver_of_the_documentation_takes_what_is_signed_and_nothing_else(post: Post) -> None:
    (snippet,) = [block.text for block in blocks(DOCS / "webhooks.md") if block.language == "python"]
    await post.store.team("lab")
    _, secret = await post.parts.vault.rotate(TEAM)
    port = free_port()
    process = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-c", snippet],
        env={"WEBHOOK_SECRET": secret, "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        await asyncio.to_thread(wait_until, lambda: _listens(port), "the documented receiver")
        url = f"http://127.0.0.1:{port}/hook"
        job_id = await post.end_job(url)
        await post.send()
        assert (await post.delivery()).history[0]["status"] == 204
        await post.parts.webhooks.resend((await post.delivery()).id)
        await post.send()
        assert await _status(post.client, url) == 401
    finally:
        process.terminate()
        said, _ = await asyncio.to_thread(process.communicate)
    assert said.decode() == f"job.cancelled {job_id}\n"


async def _status(client: GuardedClient, url: str) -> int:
    """What a forger is answered."""
    forged = {
        "content-length": "0",
        "webhook-id": "evt_1",
        "webhook-timestamp": "1",
        "webhook-signature": "v1,AAAA",
    }
    async with client.exchange("POST", url, headers=forged, timeouts=Timeouts(read_s=10)) as answer:
        return answer.status


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False
