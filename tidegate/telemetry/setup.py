"""Where a process sends what it knows of itself.

Spans go to an OTLP collector, metrics to the admin port and, if the operator says so, to the collector too.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NoOpTracer, Tracer

from tidegate import __version__
from tidegate.telemetry.conventions import SCHEMA_URL
from tidegate.telemetry.metrics import Metrics

# Either one makes OTLPSpanExporter know where to send.
_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_METRICS_VARIABLE = "OTEL_METRICS_EXPORTER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What a process traces and measures with. ``provider`` is None when spans go nowhere."""

    tracer: Tracer
    metrics: Metrics
    provider: TracerProvider | None = None

    @classmethod
    def silent(cls, tracer: Tracer | None = None) -> Telemetry:
        """For tests and tools: metrics that nobody is sent, and spans for ``tracer`` alone."""
        return cls(tracer=tracer or NoOpTracer(), metrics=Metrics())

    def shutdown(self) -> None:
        """Send what is left. Blocks, for seconds when the collector does not answer."""
        if self.provider is not None:
            self.provider.shutdown()
        self.metrics.shutdown()


def setup(service_name: str, *, endpoint: str | None = None) -> Telemetry:
    """Trace to the OTLP collector at ``endpoint`` (``http://host:4317``), or at the one OpenTelemetry's variables name.

    Without either, spans are not recorded, but the trace context of incoming calls still travels on. The operator's
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and OTEL_TRACES_SAMPLER are obeyed. OTEL_METRICS_EXPORTER=otlp sends
    the metrics as well. What a dead or slow collector costs is spans: they are dropped from a queue of bounded size,
    and counted (``otel_sdk_processor_span_processed_total``).
    """
    resource = Resource.create(
        {"service.name": service_name, "service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    ).merge(OTELResourceDetector().detect())
    is_traced = endpoint is not None or any(os.environ.get(name) for name in _ENDPOINT_VARIABLES)
    pushes_metrics = os.environ.get(_METRICS_VARIABLE, "").strip().lower() == "otlp"
    readers = [PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint))] if pushes_metrics else []
    metrics = Metrics(resource=resource, readers=readers, exemplars=is_traced)
    if not is_traced:
        return Telemetry(tracer=NoOpTracer(), metrics=metrics)
    # The meter counts what becomes of spans, batch by batch, which the SDK does only where its environment says so. Its
    # figures for each single span would cost more than the span: they are made where the operator asks for them.
    is_asked_for = OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED in os.environ
    os.environ.setdefault(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "true")
    meters = metrics.provider
    provider = TracerProvider(resource=resource, meter_provider=meters)
    exporter = OTLPSpanExporter(endpoint=endpoint, meter_provider=meters)
    provider.add_span_processor(BatchSpanProcessor(exporter, meter_provider=meters))
    if not is_asked_for:
        del os.environ[OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED]
    tracer = provider.get_tracer("tidegate", __version__, schema_url=SCHEMA_URL)
    return Telemetry(tracer=tracer, metrics=metrics, provider=provider)
