"""A collector of OpenTelemetry traces on loopback, which keeps what it is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.api.conftest import serving


@dataclass(frozen=True, kw_only=True)
class Received:
    """A span as it came over the wire."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    is_error: bool


@dataclass
class Collector:
    """Takes spans over HTTP."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def spans(self) -> list[Received]:
        """Every span that has come."""
        found = []
        for request in self.requests:
            for resource in ExportTraceServiceRequest.FromString(request).resource_spans:
                for scope in resource.scope_spans:
                    found += [_received(span) for span in scope.spans]
        return found

    async def until(self, *names: str) -> dict[str, Received]:
        """Wait until spans of all these names have come; the last one of each name."""
        async with asyncio.timeout(30):
            while True:
                by_name = {span.name: span for span in self.spans()}
                if set(names) <= by_name.keys():
                    return by_name
                await asyncio.sleep(0.05)


def _received(span: Any) -> Received:
    return Received(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes={
            item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes
        },
        is_error=span.status.code == 2,
    )


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector."""
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False})

    @app.post("/v1/traces")
    async def take(request: Request) -> Response:
        """Keep what comes."""
        collector.requests.append(await request.body())
        collector.headers.append(dict(request.headers))
        return Response(b"", media_type="application/x-protobuf")

    async with serving(app) as url:
        collector = Collector(url)
        yield collector
