"""Counters and histograms at a price that every request can pay: a tenth of what OpenTelemetry's SDK takes for a value.

The SDK copies, checks and hashes the attributes of each value. Here they are looked up once: ``under`` gives a series
that its caller may keep, and a series takes a value in a microsecond. What is collected is the SDK's own form of data.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    DataPointT,
    Histogram,
    HistogramDataPoint,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as MetricData

from tidegate.telemetry.metric import Kind, Metric
from tidegate.telemetry.trace_context import TraceContext, current

Attributes = Mapping[str, str]

# Of one metric; as in the SDK, what comes under further attributes is counted together.
MAX_SERIES = 2000
_BEYOND: Attributes = {"otel.metric.overflow": "true"}


class CounterSeries:
    """A counter under one set of attributes."""

    __slots__ = ("_began_ns", "_lock", "_value")

    def __init__(self) -> None:
        self._began_ns = time.time_ns()
        self._lock = Lock()
        self._value = 0.0

    def add(self, amount: float) -> None:
        """Count so many more."""
        with self._lock:
            self._value += amount

    def point(self, attributes: Attributes, now_ns: int) -> NumberDataPoint:
        """As it is now."""
        return NumberDataPoint(dict(attributes), self._began_ns, now_ns, self._value)


class HistogramSeries:
    """A histogram under one set of attributes."""

    __slots__ = (
        "_began_ns",
        "_bounds",
        "_counts",
        "_exemplars",
        "_greatest",
        "_has_exemplar",
        "_least",
        "_lock",
        "_sum",
    )

    def __init__(self, bounds: tuple[float, ...], *, exemplars: bool) -> None:
        """With ``exemplars``, each bucket shows a value of a sampled trace: the first after it was last looked at.

        So most values cost nothing more than they do without.
        """
        self._began_ns = time.time_ns()
        self._bounds = bounds
        self._lock = Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._least, self._greatest = float("inf"), float("-inf")
        self._exemplars: dict[int, Exemplar] = {}  # by bucket
        self._has_exemplar = [not exemplars] * len(self._counts)  # one that nobody has seen

    def record(self, amount: float) -> None:
        """One more value."""
        bucket = bisect_left(self._bounds, amount)  # bounds belong to the buckets below them
        with self._lock:
            self._counts[bucket] += 1
            self._sum += amount
            self._least = min(self._least, amount)
            self._greatest = max(self._greatest, amount)
        if not self._has_exemplar[bucket] and (context := current()) is not None and context.is_sampled:
            self._show(amount, bucket, context)

    def _show(self, amount: float, bucket: int, context: TraceContext) -> None:
        trace_id, span_id = int.from_bytes(context.trace_id, "big"), int.from_bytes(context.span_id, "big")
        self._exemplars[bucket] = Exemplar({}, amount, time.time_ns(), span_id, trace_id)
        self._has_exemplar[bucket] = True

    def point(self, attributes: Attributes, now_ns: int) -> HistogramDataPoint:
        """As it is now."""
        with self._lock:
            counts, total, least, greatest = tuple(self._counts), self._sum, self._least, self._greatest
        shown = dict(self._exemplars)
        for bucket in shown:
            self._has_exemplar[bucket] = False
        return HistogramDataPoint(
            attributes=dict(attributes),
            start_time_unix_nano=self._began_ns,
            time_unix_nano=now_ns,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=self._bounds,
            min=least,
            max=greatest,
            exemplars=list(shown.values()),
        )


class _Series(Protocol):
    def point(self, attributes: Attributes, now_ns: int) -> DataPointT: ...


_S = TypeVar("_S", bound=_Series)


class Recorded(Generic[_S]):
    """One metric: its series, by their attributes. Values may come from any thread."""

    def __init__(self, metric: Metric, make: Callable[[], _S]) -> None:
        """``make`` makes an empty series."""
        self._metric = metric
        self._make = make
        self._series: dict[frozenset[tuple[str, str]], _S] = {}

    def under(self, attributes: Attributes) -> _S:
        """The series with these attributes; its caller may keep it."""
        series = self._series.get(frozenset(attributes.items()))
        return self._added(attributes) if series is None else series

    def _added(self, attributes: Attributes) -> _S:
        if len(self._series) >= MAX_SERIES:
            attributes = _BEYOND
        # Another thread may have been as fast: then its series is taken.
        return self._series.setdefault(frozenset(attributes.items()), self._make())

    def data(self) -> MetricData:
        """All that was recorded so far."""
        metric, now_ns = self._metric, time.time_ns()
        points: list[Any] = [series.point(dict(key), now_ns) for key, series in tuple(self._series.items())]
        cumulative = AggregationTemporality.CUMULATIVE
        is_histogram = metric.kind is Kind.HISTOGRAM
        data = Histogram(points, cumulative) if is_histogram else Sum(points, cumulative, is_monotonic=True)
        return MetricData(metric.name, metric.description, metric.unit, data)
