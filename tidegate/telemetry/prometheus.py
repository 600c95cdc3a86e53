"""OpenTelemetry's metrics in Prometheus's form, exemplars included (the contributed exporter leaves those out)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from threading import Lock
from typing import Any

from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter, ObservableUpDownCounter, UpDownCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.export import Metric as MetricData
from opentelemetry.trace import format_span_id, format_trace_id
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Exemplar

from tidegate.telemetry.metric import prometheus_label, prometheus_name

_ALWAYS_CUMULATIVE: dict[type, AggregationTemporality] = dict.fromkeys(
    (Counter, Histogram, ObservableCounter, ObservableUpDownCounter, UpDownCounter), AggregationTemporality.CUMULATIVE
)


class PrometheusReader(MetricReader):
    """Hands out the metrics as Prometheus families. They are read when somebody asks, and not before."""

    def __init__(self) -> None:
        super().__init__(preferred_temporality=_ALWAYS_CUMULATIVE)
        self._lock = Lock()
        self._received: MetricsData | None = None

    def families(self) -> list[Family]:
        """All metrics as of now; from any thread."""
        with self._lock:
            self.collect()
            received, self._received = self._received, None
        if received is None:
            return []
        scopes = chain.from_iterable(resource.scope_metrics for resource in received.resource_metrics)
        return [family(metric) for scope in scopes for metric in scope.metrics]

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        del timeout_millis, kwargs
        self._received = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is held."""


def family(metric: MetricData) -> Family:
    """A metric of OpenTelemetry as a Prometheus family."""
    name = prometheus_name(metric.name, metric.unit or "")
    keys = sorted({key for point in metric.data.data_points for key in point.attributes or {}})
    labels = [prometheus_label(key) for key in keys]
    if isinstance(metric.data, HistogramData):
        histogram = HistogramMetricFamily(name, metric.description or "", labels=labels)
        for point in metric.data.data_points:
            histogram.add_metric(_values(point, keys), _buckets(point), point.sum)
        return histogram
    is_counter = isinstance(metric.data, Sum) and metric.data.is_monotonic
    kind = CounterMetricFamily if is_counter else GaugeMetricFamily
    numbers = kind(name, metric.description or "", labels=labels)
    for number in metric.data.data_points:
        if isinstance(number, NumberDataPoint):
            numbers.add_metric(_values(number, keys), number.value)
    return numbers


def _values(point: Any, keys: Sequence[str]) -> list[str]:
    attributes = point.attributes or {}
    return [str(attributes.get(key, "")) for key in keys]


def _buckets(point: HistogramDataPoint) -> list[Any]:
    """Cumulative buckets, each with the latest exemplar that fell into it."""
    bounds = (*point.explicit_bounds, float("inf"))
    buckets: list[Any] = [
        [_bound(bound), count] for bound, count in zip(bounds, accumulate(point.bucket_counts), strict=True)
    ]
    lower_bounds = chain((float("-inf"),), point.explicit_bounds)
    for bucket, (lower, upper) in zip(buckets, zip(lower_bounds, bounds, strict=True), strict=True):
        inside = [one for one in point.exemplars if lower < one.value <= upper and one.trace_id]
        if inside:
            latest = max(inside, key=lambda one: one.time_unix_nano)
            trace = {"trace_id": format_trace_id(latest.trace_id or 0), "span_id": format_span_id(latest.span_id or 0)}
            bucket.append(Exemplar(trace, latest.value, latest.time_unix_nano / 1e9))
    return buckets


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(float(bound))
