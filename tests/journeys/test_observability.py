"""What operators see of real work: counters that move, and one trace from the request to the webhook."""

import asyncio
import io
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from app.domain.failures import FailureKind
from app.jobs import survey
from app.main import build_app
from tests.collector import collecting
from tests.harness.processes import free_port
from tests.house import OpenHouse, opener
from tests.kit.scripted_server import Exchange, scripted_server
from tests.kitchen import ADMIN_KEY, API_KEY, catalog_of, open_kitchen, write_settings
from tests.scrape import scrape, scrape_until
from tests.simulators.openai import OpenAi
from tests.simulators.therouter import TheRouter

VENDOR_KEY: Final = "sk-canary-of-a-vendor"
PROMPT: Final = "canary of a prompt"
GENERATIONS: Final = "/v1/images/generations"
REQUEST: Final[dict[str, Any]] = {
    "model": "gpt-image-2", "prompt": PROMPT, "quality": "low", "size": "1024x1024",
}  # fmt: skip
TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER: Final = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
SECRETS: Final = ("canary", API_KEY, ADMIN_KEY, VENDOR_KEY, "sig=")


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from one scrape to the next."""
    monkeypatch.setattr(survey, "FRESH_S", 0.0)


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str) -> OpenHouse:
    return opener(monkeypatch, tmp_path, sqlite_url)


async def test_a_picture_moves_the_counters_on_its_way(house: OpenHouse) -> None:
    async with OpenAi(api_key=VENDOR_KEY) as vendor, house(vendor) as running:
        answer = await running.client.post(GENERATIONS, json={**REQUEST, "n": 2})
        assert answer.status_code == 200, answer.text
        cost_usd = float(answer.headers["x-darkroom-cost-usd"])
        found = await scrape(running.client)
    job = {"model": "gpt-image-2", "operation": "image.generation"}
    route = {"upstream": "openai", "model": "gpt-image-2"}
    assert found.value("darkroom_jobs_admitted_total", **job) == 1
    assert found.value("darkroom_jobs_claimed_total") == 1
    assert found.value("darkroom_jobs_finished_total", **job, status="succeeded") == 1
    assert found.value("darkroom_job_duration_seconds_count", **job, status="succeeded") == 1
    assert found.value("darkroom_job_queue_seconds_count", model="gpt-image-2") == 1
    assert found.value("darkroom_attempt_duration_seconds_count", **route, outcome="succeeded") == 1
    assert found.value("darkroom_pictures_total", **route) == 2
    booked = found.value("darkroom_cost_usd_total", upstream="openai", certainty="estimated")
    assert booked == pytest.approx(cost_usd)
    calls = "darkroom_upstream_call_duration_seconds_count"
    assert found.value(calls, upstream="openai", call="submit", outcome="2xx") == 1
    assert found.value("darkroom_upstream_calls_in_flight", upstream="openai") == 0
    assert found.value("darkroom_worker_slots") == 100
    served = found.value(
        "darkroom_http_request_duration_seconds_count", method="POST", route=GENERATIONS, status="200"
    )
    assert served == 1
    for secret in SECRETS:
        assert secret not in found.text


@pytest.mark.parametrize(
    "step,kind,call",
    [
        ("401", FailureKind.CREDENTIALS, "4xx"),
        ("429:7", FailureKind.BUSY, "4xx"),
        ("503", FailureKind.DOWN, "5xx"),
        ("502", FailureKind.GARBLED, "5xx"),
        ("cut", FailureKind.TIMED_OUT, "timed_out"),
    ],
)
async def test_a_failure_is_counted_by_its_kind(
    house: OpenHouse, step: str, kind: FailureKind, call: str
) -> None:
    async with OpenAi(api_key=VENDOR_KEY) as first, TheRouter(api_key=VENDOR_KEY) as second:
        first.script(step)
        async with house(first, second) as running:
            await running.client.post(GENERATIONS, json=REQUEST)
            found = await scrape(running.client)
    failed = found.value("darkroom_attempt_duration_seconds_count", upstream="openai", outcome=kind.value)
    assert failed == 1
    assert found.value("darkroom_upstream_call_duration_seconds_count", upstream="openai", outcome=call) == 1
    is_paid_perhaps = kind in {FailureKind.GARBLED, FailureKind.TIMED_OUT}
    possible = found.value("darkroom_cost_usd_total", upstream="openai", certainty="possible")
    assert (possible or 0) > 0 if is_paid_perhaps else possible is None
    others = found.value("darkroom_attempt_duration_seconds_count", upstream="therouter", outcome="succeeded")
    assert others == (None if is_paid_perhaps else 1)
    status = "failed" if is_paid_perhaps else "succeeded"
    assert found.value("darkroom_jobs_finished_total", status=status) == 1


async def test_webhooks_are_counted_by_what_came_of_them(house: OpenHouse) -> None:
    statuses = iter([500, 204, 410])

    async def receive(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(next(statuses))

    async with (
        OpenAi(api_key=VENDOR_KEY) as vendor,
        house(vendor) as running,
        scripted_server(receive) as receiver,
    ):
        outcomes = ("put_off", "succeeded", "given_up")
        for outcome in outcomes:
            body = {**REQUEST, "webhook_url": f"{receiver.url}/canary"}
            await running.client.post(GENERATIONS, json=body)
            tries = "darkroom_webhook_try_duration_seconds_count"
            await scrape_until(running.client, tries, outcome=outcome)
        found = await scrape(running.client)
        assert found.value("darkroom_webhook_deliveries_pending") == 1
        assert found.value("darkroom_webhook_overdue_seconds") == 0
        assert "canary" not in found.text


async def test_one_trace_leads_from_the_request_to_the_webhook_through_both_processes(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    postgres_url: str,
    redis_url: str,
    talkative: io.StringIO,
) -> None:
    async def receive(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(204)

    async with AsyncExitStack() as closing:
        collector = await closing.enter_async_context(collecting())
        vendor = await closing.enter_async_context(OpenAi(api_key=VENDOR_KEY))
        receiver = await closing.enter_async_context(scripted_server(receive))
        monkeypatch.setenv("OPENAI_TEST_KEY", VENDOR_KEY)
        settings = write_settings(
            monkeypatch,
            tmp_path,
            catalog_of({"openai": vendor}),
            database_url=postgres_url,
            REDIS_URL=redis_url,
            OTLP_ENDPOINT=collector.url,
        )
        api = await closing.enter_async_context(open_kitchen(settings, is_working=False))
        await closing.enter_async_context(open_kitchen(settings))
        client = await closing.enter_async_context(
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=build_app(api.parts)), base_url="http://darkroom.test"
            )
        )
        link = "/v1/files/file_canary/content?exp=1&kid=canary&sig=canary"
        assert (await client.get(link)).status_code in {403, 404}
        answer = await client.post(
            GENERATIONS,
            json={**REQUEST, "webhook_url": f"{receiver.url}/canary?token=canary"},
            headers={"authorization": f"Bearer {API_KEY}", "traceparent": CALLER},
        )
        assert answer.status_code == 200, answer.text
        spans = await collector.until(
            f"POST {GENERATIONS}", "job.run", "webhook.deliver", "GET /v1/files/{file_id}/content"
        )
        (purchase,) = [call for call in vendor.ledger.calls if call.method == "POST"]
    job_id = answer.headers["x-darkroom-job-id"]
    ours = {name: span for name, span in spans.items() if span.trace_id == TRACE_ID}
    parents = {
        f"POST {GENERATIONS}": CALLER.split("-")[2],
        "job.submit": spans[f"POST {GENERATIONS}"].span_id,
        "job.run": spans["job.submit"].span_id,
        "attempt": spans["job.run"].span_id,
        "upstream.submit": spans["attempt"].span_id,
        "picture.keep": spans["attempt"].span_id,
        "webhook.deliver": spans["job.submit"].span_id,
    }
    assert {name: span.parent_id for name, span in ours.items()} == parents
    assert not [span.name for span in ours.values() if span.is_error]
    assert spans["job.run"].attributes["outcome"] == "succeeded"
    assert spans["job.run"].attributes["job_id"] == job_id
    assert spans["attempt"].attributes["upstream"] == "openai"
    assert spans["attempt"].attributes["attempt_id"].startswith("att_")
    assert spans["upstream.submit"].attributes["host"] == "127.0.0.1"
    assert spans[f"POST {GENERATIONS}"].attributes["status"] == 200
    # What leaves for the vendor knows nothing of it.
    assert "traceparent" not in {name.lower() for name in purchase.headers}
    logged = [json.loads(line) for line in talkative.getvalue().splitlines()]
    of_job = [
        line for line in logged if line.get("job_id") == job_id and line["event"].startswith("attempt.")
    ]
    assert of_job
    assert {line.get("trace_id") for line in of_job} == {TRACE_ID}
    sent = b"".join(collector.requests)
    for secret in SECRETS:
        assert secret.encode() not in sent, secret


@pytest.mark.journey
async def test_a_worker_is_watched_where_its_settings_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    port = free_port()
    async with OpenAi(api_key=VENDOR_KEY) as vendor:
        monkeypatch.setenv("OPENAI_TEST_KEY", VENDOR_KEY)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        settings = write_settings(
            monkeypatch,
            tmp_path,
            catalog_of({"openai": vendor}),
            database_url=postgres_url,
            REDIS_URL=redis_url,
            WORKER_LISTEN=f"127.0.0.1:{port}",
        )
        command = [sys.executable, "-c", "from app.cli.main import main; main()", "worker"]
        async with open_kitchen(settings, is_working=False) as api:
            worker = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
            try:
                job_id = await api.order()
                await api.served(job_id, within_s=60)
                async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                    found = await scrape_until(client, "darkroom_jobs_finished_total", status="succeeded")
                    assert found.value("darkroom_worker_slots") == 100
                    assert found.value("darkroom_redis_up") == 1
                    assert (await client.get("/healthz")).status_code == 200
                    assert (await client.get("/metrics")).status_code == 401
                worker.terminate()
                assert await asyncio.wait_for(worker.wait(), 30) == 0
            finally:
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
