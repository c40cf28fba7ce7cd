"""Traces: which part of the work took how long, sent to an OpenTelemetry collector by OTLP over HTTP.

Attributes are ids, names of the catalog and closed lists; never prompts, keys, links or texts of exceptions.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Final, Protocol

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

_SPANS_KEPT: Final = 4096
"""Spans that wait for the collector, of about a kilobyte each; when it is away, the oldest are dropped."""
_SEND_EVERY_S: Final = 2.0
_SEND_TIMEOUT_S: Final = 5.0
_PARTING_S: Final = 3.0
"""How long a process that stops waits for the collector to take the last spans."""
_PATH: Final = "/v1/traces"
_CARRIER: Final = "traceparent"
_NOTHING: Final = nullcontext()


class SpanKind(Enum):
    """Which side of a conversation a span is."""

    INTERNAL = trace.SpanKind.INTERNAL
    SERVER = trace.SpanKind.SERVER
    CLIENT = trace.SpanKind.CLIENT
    CONSUMER = trace.SpanKind.CONSUMER


class Tracing(Protocol):
    """Follows work through functions, tasks and processes. `note`, `fail` and `rename` act on the innermost span."""

    def span(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: str | None = None,
        **attributes: str | int | None,
    ) -> AbstractContextManager[None]:
        """Cover what happens in the context, and in tasks that it starts.

        `parent`: a W3C `traceparent` from elsewhere; without one, or with one that is none, the innermost span.
        """
        ...

    def note(self, **attributes: str | int | None) -> None:
        """Add attributes; None adds nothing."""
        ...

    def fail(self, outcome: str) -> None:
        """Mark the work as failed, with a word of a closed list."""
        ...

    def rename(self, name: str) -> None:
        """Give the span the name that is known only later."""
        ...

    def parent(self) -> str | None:
        """The innermost span as a W3C `traceparent`, to be gone on with elsewhere; None when nothing is traced."""
        ...

    async def close(self) -> None:
        """Send what is left, for a moment."""
        ...


class NoTracing:
    """Follows nothing and costs nothing."""

    def span(
        self,
        name: str,  # noqa: ARG002 - as those below: the signature of the other one
        *,
        kind: SpanKind = SpanKind.INTERNAL,  # noqa: ARG002
        parent: str | None = None,  # noqa: ARG002
        **attributes: str | int | None,  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Cover nothing."""
        return _NOTHING

    def note(self, **attributes: str | int | None) -> None:
        """Add nothing."""

    def fail(self, outcome: str) -> None:
        """Mark nothing."""

    def rename(self, name: str) -> None:
        """Name nothing."""

    def parent(self) -> str | None:
        """There is none."""
        return None

    async def close(self) -> None:
        """Send nothing."""


class OtlpTracing:
    """Sends spans in the background; a collector that is away costs spans, and nothing else."""

    def __init__(self, endpoint: str, attributes: Mapping[str, str]) -> None:
        """Begin to send to `endpoint`, a collector's base address; `attributes` tell of this process.

        The SDK's own variables hold beside it, such as `OTEL_TRACES_SAMPLER` and `OTEL_EXPORTER_OTLP_HEADERS`.
        """
        # They would repeat for each batch what `_Exporter` says once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        url = endpoint if endpoint.endswith(_PATH) else endpoint + _PATH
        self._exporter = _Exporter(OTLPSpanExporter(url, timeout=_SEND_TIMEOUT_S))
        self._provider = TracerProvider(resource=Resource.create(dict(attributes)), shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter, max_queue_size=_SPANS_KEPT, schedule_delay_millis=_SEND_EVERY_S * 1000
            )
        )
        self._tracer = self._provider.get_tracer("darkroom")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: str | None = None,
        **attributes: str | int | None,
    ) -> Iterator[None]:
        """See `Tracing.span`."""
        # What came along as `tracestate` is free text of somebody else, and is left behind.
        context = None if parent is None else self._propagator.extract({_CARRIER: parent})
        is_first = not trace.get_current_span().get_span_context().is_valid
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=kind.value,
            attributes=_known(attributes),
            # The texts of exceptions may hold addresses.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            in_logs = _trace_id_in_logs(span) if is_first else _NOTHING
            with in_logs:
                try:
                    yield
                except BaseException as exc:
                    span.set_status(trace.StatusCode.ERROR)
                    span.set_attribute("error.type", type(exc).__name__)
                    raise

    def note(self, **attributes: str | int | None) -> None:
        """See `Tracing.note`."""
        trace.get_current_span().set_attributes(_known(attributes))

    def fail(self, outcome: str) -> None:
        """See `Tracing.fail`."""
        span = trace.get_current_span()
        span.set_attribute("outcome", outcome)
        span.set_status(trace.StatusCode.ERROR)

    def rename(self, name: str) -> None:
        """See `Tracing.rename`."""
        trace.get_current_span().update_name(name)

    def parent(self) -> str | None:
        """See `Tracing.parent`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get(_CARRIER)

    async def close(self) -> None:
        """See `Tracing.close`."""
        # Threads of the loop are waited for without end when the process stops; this one is not.
        parting = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        parting.start()
        await asyncio.to_thread(parting.join, _PARTING_S)
        self._exporter.shutdown()


class _Exporter(SpanExporter):
    """Says once that the collector does not take spans, and once that it takes them again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, on the processor's own thread."""
        result = self._exporter.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            LOG.warning("traces.not_taken", spans=len(spans))
        if self._is_away and not is_away:
            LOG.info("traces.taken_again")
        self._is_away = is_away
        return result

    def shutdown(self) -> None:
        """Give up on what is being sent."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)


def _known(attributes: Mapping[str, str | int | None]) -> dict[str, str | int]:
    return {name: value for name, value in attributes.items() if value is not None}


def _trace_id_in_logs(span: trace.Span) -> AbstractContextManager[None]:
    trace_id = trace.format_trace_id(span.get_span_context().trace_id)
    return structlog.contextvars.bound_contextvars(trace_id=trace_id)
