"""An OTLP collector in this process: it keeps what it is sent, and shows traces as trees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from tidegate.telemetry.setup import Telemetry, setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span that has ended."""

    service: str
    span: trace_pb2.Span

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Each with its value."""
        return {one.key: _value(one.value) for one in self.span.attributes}


def _value(value: common_pb2.AnyValue) -> Any:
    """What stands in an attribute."""
    kind = value.WhichOneof("value") or "string_value"
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[Mapping[str, str]] = []
        self.endpoint = ""
        self.rejected = 0  # spans that it says it does not take, of each batch

    async def Export(self, request: Any, context: Any) -> trace_service_pb2.ExportTraceServiceResponse:  # noqa: N802
        for resource in request.resource_spans:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.resources.append(named)
            self.spans += [
                Span(service=named["service.name"], span=span) for scope in resource.scope_spans for span in scope.spans
            ]
        rejected = trace_service_pb2.ExportTracePartialSuccess(
            rejected_spans=self.rejected, error_message="too large" if self.rejected else ""
        )
        return trace_service_pb2.ExportTraceServiceResponse(partial_success=rejected)

    def telemetry(self, service: str, *, begins_traces: bool = True) -> Telemetry:
        """What a service traces with that sends its spans here; a worker begins no traces."""
        return setup(service, endpoint=self.endpoint, begins_traces=begins_traces)

    def in_trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace, in the order of their beginnings."""
        found = [span for span in self.spans if span.span.trace_id.hex() == trace_id]
        return sorted(found, key=lambda span: span.span.start_time_unix_nano)

    def tree(self, trace_id: str, parent_id: str) -> list[Any]:
        """What stands below a span: names, with a list after each that has something below itself."""
        below: list[Any] = []
        for span in self.in_trace(trace_id):
            if span.span.parent_span_id.hex() == parent_id:
                children = self.tree(trace_id, span.span.span_id.hex())
                below += [span.span.name, children] if children else [span.span.name]
        return below


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a free port of localhost."""
    collector, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0)


async def flush(*telemetries: Telemetry) -> None:
    """Send what has ended so far."""
    for telemetry in telemetries:
        if telemetry.export is not None:
            await asyncio.to_thread(telemetry.export.flush)
