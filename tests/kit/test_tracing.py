"""Spans: how they hang together, what they hold, and what becomes of them while nobody takes them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from structlog.testing import capture_logs

from app.kit import tracing
from app.kit.tracing import NoTracing, OtlpTracing, SpanKind
from tests.collector import Collector, collecting
from tests.harness.processes import free_port
from tests.kit.scripted_server import Exchange, scripted_server

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = CALLER[:-1] + "0"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are sent at once."""
    monkeypatch.setattr(tracing, "_SEND_EVERY_S", 0.02)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as running:
        yield running


@pytest.fixture
async def traced(collector: Collector) -> AsyncIterator[OtlpTracing]:
    made = OtlpTracing(collector.url, {"service.name": "darkroom"})
    yield made
    await made.close()


async def test_what_happens_within_a_span_hangs_below_it_in_tasks_too(
    traced: OtlpTracing, collector: Collector
) -> None:
    async def work() -> None:
        with traced.span("inner", kind=SpanKind.CLIENT, upstream="openai", attempt_id=None):
            traced.note(outcome="2xx")

    with traced.span("outer"):
        await asyncio.create_task(work())
        traced.rename("GET /v1/jobs")
    spans = await collector.until("inner", "GET /v1/jobs")
    assert spans["inner"].parent_id == spans["GET /v1/jobs"].span_id
    assert spans["inner"].attributes == {"upstream": "openai", "outcome": "2xx"}


async def test_work_goes_on_elsewhere_in_the_same_trace(traced: OtlpTracing, collector: Collector) -> None:
    with traced.span("here", parent=CALLER):
        handed_on = traced.parent()
    assert traced.parent() is None
    with traced.span("there", parent=handed_on):
        pass
    spans = await collector.until("here", "there")
    assert {spans["here"].trace_id, spans["there"].trace_id} == {CALLER.split("-")[1]}
    assert spans["here"].parent_id == CALLER.split("-")[2]
    assert spans["there"].parent_id == spans["here"].span_id


@pytest.mark.parametrize("given", ["", "nonsense", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", CALLER + "-x"])
async def test_what_is_no_parent_begins_a_trace_of_its_own(
    traced: OtlpTracing, collector: Collector, given: str
) -> None:
    with traced.span("alone", parent=given):
        pass
    assert (await collector.until("alone"))["alone"].parent_id == ""


async def test_a_caller_that_is_not_recorded_is_not_recorded_here(
    traced: OtlpTracing, collector: Collector
) -> None:
    with traced.span("unsampled", parent=UNSAMPLED):
        assert (traced.parent() or "").endswith("-00")
    with traced.span("sampled"):
        pass
    assert "unsampled" not in await collector.until("sampled")


async def test_an_exception_is_told_by_its_name_alone(traced: OtlpTracing, collector: Collector) -> None:
    with pytest.raises(ValueError, match="canary"), traced.span("broken"):
        raise ValueError("canary of an address")
    with traced.span("failed"):
        traced.fail("timed_out")
    spans = await collector.until("broken", "failed")
    assert spans["broken"].is_error
    assert spans["broken"].attributes == {"error.type": "ValueError"}
    assert spans["failed"].is_error
    assert spans["failed"].attributes == {"outcome": "timed_out"}
    assert b"canary" not in b"".join(collector.requests)


async def test_logs_within_a_span_carry_the_id_of_its_trace(traced: OtlpTracing) -> None:
    def bound() -> object:
        return structlog.contextvars.get_contextvars().get("trace_id")

    assert bound() is None
    with traced.span("outer", parent=CALLER), traced.span("inner"):
        assert bound() == CALLER.split("-")[1]
    assert bound() is None


async def until_logged(logs: Sequence[object]) -> None:
    async with asyncio.timeout(30):
        while True:
            if logs:
                return
            await asyncio.sleep(0.05)


async def test_a_collector_that_is_away_costs_nothing_but_spans_and_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    with capture_logs() as logs:
        traced = OtlpTracing(f"http://127.0.0.1:{port}", {})
        began = time.monotonic()
        for _ in range(3 * tracing._SPANS_KEPT):  # noqa: SLF001 - more than are kept
            with traced.span("lost"):
                pass
        assert time.monotonic() - began < 20
        await until_logged(logs)
        began = time.monotonic()
        await traced.close()
        assert time.monotonic() - began < 10
    assert [(line["event"], line["log_level"]) for line in logs] == [("traces.not_taken", "warning")]
    assert not [record for record in caplog.records if record.name.startswith(("opentelemetry", "urllib3"))]


async def test_a_collector_that_hangs_does_not_hold_up_a_process_that_stops() -> None:
    async def hang(exchange: Exchange) -> None:
        await exchange.request()
        await asyncio.Event().wait()

    async with scripted_server(hang) as server:
        traced = OtlpTracing(server.url, {})
        with traced.span("stuck"):
            pass
        began = time.monotonic()
        await traced.close()
        assert time.monotonic() - began < 10


async def test_a_collector_that_comes_back_is_told(collector: Collector) -> None:
    with capture_logs() as logs:
        sent = tracing._Exporter(OTLPSpanExporter(f"{collector.url}/nowhere"))  # noqa: SLF001
        sent.export(())
        sent.export(())
        sent._exporter = OTLPSpanExporter(f"{collector.url}/v1/traces")  # noqa: SLF001
        await asyncio.to_thread(sent.export, ())
    assert [line["event"] for line in logs] == ["traces.not_taken", "traces.taken_again"]


async def test_without_a_collector_nothing_is_traced() -> None:
    nothing = NoTracing()
    with nothing.span("outer", parent=CALLER), nothing.span("inner", kind=SpanKind.SERVER, job_id="job_1"):
        nothing.note(outcome="2xx")
        nothing.fail("timed_out")
        nothing.rename("other")
        assert nothing.parent() is None
    await nothing.close()
