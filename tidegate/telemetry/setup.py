"""Where a process sends what it knows of itself.

Spans go to an OTLP collector, metrics to the admin port and, if the operator says so, to the collector too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Thread

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from tidegate import __version__
from tidegate.telemetry import catalogue, environment
from tidegate.telemetry import conventions as names
from tidegate.telemetry.metrics import Metrics, Reading
from tidegate.telemetry.otlp_sender import OtlpSender
from tidegate.telemetry.sampling import sampler_of_environment
from tidegate.telemetry.span_export import FAILED, SENT, SpanExport
from tidegate.telemetry.spans import NoTracer, RecordingTracer, Tracer

# Either one makes OTLPSpanExporter know where to send.
_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What a process traces and measures with. ``export`` is None when spans go nowhere."""

    tracer: Tracer
    metrics: Metrics
    export: SpanExport | None = None

    @classmethod
    def silent(cls, tracer: Tracer | None = None) -> Telemetry:
        """For tests and tools: metrics that nobody is sent, and spans for ``tracer`` alone."""
        return cls(tracer=tracer or NoTracer(), metrics=Metrics())

    def shutdown(self) -> None:
        """Send what is left. Blocks, for seconds when the collector does not answer."""
        if self.export is not None:
            self.export.shutdown()
        self.metrics.shutdown()

    async def end(self) -> None:
        """Send what is left, at the end of a process: a further SIGTERM or SIGINT gives it up."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            try:
                self.shutdown()
            finally:
                with suppress(RuntimeError):  # given up, and the loop is closed
                    loop.call_soon_threadsafe(ended.set)

        signals = (signal.SIGTERM, signal.SIGINT)
        for signum in signals:
            loop.add_signal_handler(signum, ended.set)
        try:
            # No thread of an executor: the process would wait for it.
            Thread(target=shut_down, name="telemetry", daemon=True).start()
            await ended.wait()
        finally:
            for signum in signals:
                loop.remove_signal_handler(signum)


def setup(service_name: str, *, endpoint: str | None = None, begins_traces: bool = True) -> Telemetry:
    """Trace to the OTLP collector at ``endpoint`` (``http://host:4317``), or at the one OpenTelemetry's variables name.

    Without either, spans are not recorded, but the trace context of incoming calls still travels on. The operator's
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER and OTEL_BSP_... are obeyed. A service that stands
    behind another one begins no traces, unless a sampler says so that hears no parent: a call without a context is one
    that the other does not record, and what is not said costs nothing.
    OTEL_METRICS_EXPORTER=otlp sends the metrics as well; with OTEL_SDK_DISABLED=true nothing is sent. What a dead or
    slow collector costs is spans: their queue is bounded, and what it does not take is counted
    (``tidegate_trace_spans_total``). Raises ``UnusableExporterError``.
    """
    resource = Resource.create(
        {"service.name": service_name, "service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    ).merge(OTELResourceDetector().detect())
    is_traced, readers = _is_traced(endpoint), _readers(endpoint)
    metrics = Metrics(resource=resource, readers=readers, exemplars=is_traced)
    if not is_traced:
        return Telemetry(tracer=NoTracer(), metrics=metrics)
    environment.check_protocol("TRACES")
    with environment.making_exporter("TRACES"):
        sender = OtlpSender(
            resource,
            endpoint,
            timeout_s=environment.timeout_s("TRACES"),
            compression=environment.compression("TRACES"),
        )
    export = SpanExport(sender)
    sampler = sampler_of_environment()
    if sampler.is_parent_heard and not begins_traces:
        sampler = replace(sampler, share=0.0)
    tracer = RecordingTracer(sampler, export)
    metrics.observe(catalogue.TRACE_SPANS, lambda: _counted(export, sender))
    metrics.observe(catalogue.OPEN_SPANS, lambda: [(tracer.open_spans, {})])
    return Telemetry(tracer=tracer, metrics=metrics, export=export)


def _counted(export: SpanExport, sender: OtlpSender) -> Iterator[Reading]:
    """Spans by what became of them. Those that a collector has rejected came to it in a batch that it took."""
    counts = {**export.counts, SENT: sender.taken}
    counts[FAILED] += sender.rejected
    for outcome, count in counts.items():
        yield count, {names.OUTCOME: outcome}


def _is_traced(endpoint: str | None) -> bool:
    is_told_where = endpoint is not None or any(os.environ.get(name) for name in _ENDPOINT_VARIABLES)
    return is_told_where and not environment.is_disabled() and environment.is_sent("TRACES", default=True)


def _readers(endpoint: str | None) -> list[MetricReader]:
    """That push metrics."""
    if environment.is_disabled() or not environment.is_sent("METRICS", default=False):
        return []
    environment.check_protocol("METRICS")
    with environment.making_exporter("METRICS"):
        exporter = OTLPMetricExporter(
            endpoint=endpoint,
            timeout=environment.timeout_s("METRICS"),
            compression=environment.compression("METRICS"),
        )
        return [PeriodicExportingMetricReader(exporter, export_interval_millis=environment.interval_ms())]
