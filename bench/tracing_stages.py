"""What tracing adds to a request in CPU time of the event loop: to record it, and to write its spans.

    python -m bench.tracing_stages

The code of gateway and worker that records one request, in this process: best of several rounds, so that the figures
hold on a busy machine, as far as its caches do. Below it the same spans alone, made by OpenTelemetry's SDK and written
by its exporter's encoder. What whole processes take is ``bench.tracing``'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial

from grpc import StatusCode
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import SpanKind, set_span_in_context

from bench.data_plane import handshake
from bench.request_cost import Site, best_us
from gateway.call import Call
from gateway.journal import Journal
from gateway.model import ServedModel
from gateway.passage import Passage
from gateway.policy.outcomes import Outcome
from gateway.records import Records
from gateway.renderer import Renderer
from tidegate.rpc.served_calls import ServedCalls
from tidegate.telemetry import conventions as names
from tidegate.telemetry.labels import BoundedLabels
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.otlp import write
from tidegate.telemetry.sampling import Sampler
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.spans import RecordingTracer, Span
from worker.engine import EngineFinish, FinishReason
from worker.records import Records as WorkerRecords

_GATEWAY, _WORKER = "tidegate.inference.v1.InferenceService/Generate", "tidegate.worker.v1.WorkerService/Generate"
_PARENT = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
_RESOURCE = Resource({"service.name": "bench"})


class LastSpans:
    """A sink that keeps those of the last request."""

    def __init__(self) -> None:
        self.ended: deque[Span] = deque()
        self.cohort = 1000

    def has_room(self) -> bool:
        """See ``SpanSink``."""
        self.ended.clear()
        return True

    def take(self) -> None:
        """See ``SpanSink``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Of tracing: ``share`` of the traces, or None where there is no collector."""

    name: str
    share: float | None

    def telemetry(self, sink: LastSpans) -> Telemetry:
        """For one service."""
        if self.share is None:
            return Telemetry.silent()
        tracer = RecordingTracer(Sampler(share=self.share, is_parent_heard=True), sink)
        return Telemetry(tracer=tracer, metrics=Metrics(exemplars=True))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What the gateway sends to the worker."""
        return (_PARENT,) if self.share else ()


_WAYS = (Way(name="no tracing", share=None), Way(name="0 % sampled", share=0.0), Way(name="100 %", share=1.0))


def of_gateway(telemetry: Telemetry, site: Site) -> Callable[[], None]:
    """What records one request."""
    calls, records = ServedCalls(telemetry), Records(telemetry, Journal(), BoundedLabels())
    lease = site.fleet.lease(site.prepared.request.model, site.prepared.demand, exclude=())
    if lease is None:
        raise RuntimeError

    def request() -> None:
        served = calls.begin(_GATEWAY, ())
        record = records.begin(Call.begin((), client_s=None, max_duration_s=60.0))
        with record.stage(names.VALIDATE):
            passage = Passage()
        record.prepared(site.prepared, passage)
        record.begin_wait()
        with record.stage(names.QUEUE):
            pass
        record.end_wait()
        span = record.attempt(lease)
        _ = span.metadata
        record.first_token()
        span.end(Outcome.SUCCESS, passage, None)
        record.attempted(lease, Outcome.SUCCESS, None)
        record.__exit__(None, None, None)
        served.end(StatusCode.OK)

    return request


def of_worker(way: Way, telemetry: Telemetry) -> Callable[[], None]:
    """What records one request."""
    calls, records = ServedCalls(telemetry), WorkerRecords(telemetry, model="sim")
    finish = EngineFinish(reason=FinishReason.STOP, queue_s=0.1, prefill_s=0.1, decode_s=1.0)
    metadata = way.metadata

    def request() -> None:
        served = calls.begin(_WORKER, metadata)
        record = records.begin(prompt_tokens=100)
        record.output(1, None)
        record.output(1, finish)
        record.end(None)
        served.end(StatusCode.OK)

    return request


def written_us(spans: Iterable[Span]) -> float:
    """What it takes to write ``spans`` when they end."""
    return best_us(lambda: [write(span) for span in spans])


def cells(way: Way, make: Callable[[Telemetry], Callable[[], None]], sink: LastSpans) -> str:
    """Of one service: what records, and what writes the spans that have ended."""
    request = make(way.telemetry(sink))
    loop_us = best_us(lambda: copy_context().run(request))  # each call has a context of its own
    return f"{loop_us:.0f} | {written_us(sink.ended) if sink.ended else 0:.0f}"


class LastOfSdk(SpanProcessor):
    """As ``LastSpans``, for the SDK's."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """See ``SpanProcessor``."""
        self.spans.append(span)


def by_sdk(spans: Iterable[Span]) -> str:
    """What ``spans`` take in the loop when the SDK makes them, and to write."""
    last, provider = LastOfSdk(), TracerProvider(resource=_RESOURCE)
    provider.add_span_processor(last)
    tracer = provider.get_tracer("tidegate")
    ordered = sorted(spans, key=lambda span: span.start_ns)

    def request() -> None:
        last.spans.clear()
        made: dict[bytes, SdkSpan] = {}
        for span in ordered:
            above = made.get(span.parent_id)
            context = set_span_in_context(above) if above else None
            made[span.span_id] = tracer.start_span(span.name, context, SpanKind.INTERNAL, span.attributes)
        for span in reversed(ordered):
            made[span.span_id].end()

    loop_us = best_us(request)
    return f"{loop_us:.0f} | {best_us(lambda: encode_spans(last.spans)):.0f}"


async def main() -> None:
    """Measure and print."""
    folder = handshake.MODEL_DIR
    files = [folder / name for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")]
    renderer = Renderer.from_files(files[0].read_bytes(), files[1].read_text(), files[2].read_bytes())
    site = Site(ServedModel.from_handshake(handshake.model_response(), renderer))
    print("| CPU us a request | gateway records | writes | worker records | writes |\n|---|---|---|---|---|")
    gateway, worker = LastSpans(), LastSpans()
    for way in _WAYS:
        of_both = (
            cells(way, lambda telemetry: of_gateway(telemetry, site), gateway),
            cells(way, partial(of_worker, way), worker),
        )
        print(f"| {way.name} | {' | '.join(of_both)} |", flush=True)
    print(f"| the spans alone, by the SDK | {by_sdk(gateway.ended)} | {by_sdk(worker.ended)} |")


if __name__ == "__main__":
    asyncio.run(main())
