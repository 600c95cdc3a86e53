"""The metrics of one process: instruments for what is recorded, observers for what is read when somebody collects."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider, TraceBasedExemplarFilter
from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, MetricReader, NumberDataPoint, Sum
from opentelemetry.sdk.metrics.export import Metric as MetricData
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from tidegate import __version__
from tidegate.telemetry.conventions import SCHEMA_URL
from tidegate.telemetry.metric import Kind, Metric
from tidegate.telemetry.prometheus import PrometheusReader, family
from tidegate.telemetry.pushed import Pushed, with_exemplars
from tidegate.telemetry.recorder import CounterSeries, HistogramSeries, Recorded

_LOGGER = logging.getLogger(__name__)

Reading = tuple[float, Mapping[str, str]]
"""A value and its attributes."""


class Counter(Protocol):
    """A counter under one set of attributes."""

    def add(self, amount: float, /) -> None:
        """Count so many more."""


class Histogram(Protocol):
    """A histogram under one set of attributes."""

    def record(self, amount: float, /) -> None:
        """One more value."""


_Series_co = TypeVar("_Series_co", Counter, Histogram, covariant=True)


class Instrument(Protocol[_Series_co]):
    """A metric that values are recorded for."""

    def under(self, attributes: Mapping[str, str]) -> _Series_co:
        """What takes values under these attributes; its caller may keep it."""


class Metrics:
    """Makes instruments from the catalogue. Nothing is global: a process may hold several, as tests do."""

    def __init__(
        self, *, resource: Resource | None = None, readers: Iterable[MetricReader] = (), exemplars: bool = False
    ) -> None:
        """``readers`` come beside the Prometheus one; ``exemplars`` tie latencies to traces, where there are any."""
        self.registry = CollectorRegistry(auto_describe=False)
        prometheus, readers = PrometheusReader(), tuple(readers)
        self.provider = MeterProvider(
            metric_readers=(prometheus, *readers),
            resource=resource or Resource.create(),
            exemplar_filter=TraceBasedExemplarFilter() if exemplars else AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self._meter = self.provider.get_meter("tidegate", __version__, schema_url=SCHEMA_URL)
        self._exemplars = exemplars
        # How what is pushed is aggregated is said by variables of the operator's, which the SDK knows.
        self._is_pushed = bool(readers)
        self._counters: dict[Metric, Recorded[CounterSeries]] = {}
        self._histograms: dict[Metric, Recorded[HistogramSeries]] = {}
        # Read without the SDK, which makes no observers where OTEL_SDK_DISABLED says so: the admin port stays whole.
        self._observed: list[tuple[Metric, Callable[[], Iterable[Reading]]]] = []
        self.registry.register(_Families(prometheus.families))
        self.registry.register(_Families(self._recorded))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def histogram(self, metric: Metric) -> Instrument[Histogram]:
        """The instrument; one for each metric of that kind."""
        if self._is_pushed:
            sdk = self._meter.create_histogram(
                metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
            )
            return Pushed(with_exemplars(sdk.record) if self._exemplars else sdk.record)

        def make() -> HistogramSeries:
            return HistogramSeries(metric.buckets, exemplars=self._exemplars)

        return self._histograms.setdefault(metric, Recorded(metric, make))

    def counter(self, metric: Metric) -> Instrument[Counter]:
        """The instrument; one for each metric of that kind. Without attributes it is shown from the start, as 0."""
        counter: Instrument[Counter]
        if self._is_pushed:
            counter = Pushed(self._meter.create_counter(metric.name, metric.unit, metric.description).add)
        else:
            counter = self._counters.setdefault(metric, Recorded(metric, CounterSeries))
        if not metric.attributes:
            counter.under({}).add(0)  # or the first thing that is counted would be no increase to Prometheus
        return counter

    def observe(self, metric: Metric, read: Callable[[], Iterable[Reading]]) -> None:
        """Call ``read`` for the values whenever somebody collects.

        That happens in another thread than the event loop's: ``read`` only looks, and copies a collection
        (``tuple(...)``) before it walks through it. Should it fail, the metric is missing from this collection.
        """
        if not self._is_pushed:
            self._observed.append((metric, read))
            return

        def callback(_: CallbackOptions) -> Iterator[Observation]:
            for value, attributes in _readings(metric, read):
                yield Observation(value, attributes)

        create: Callable[..., Any] = (
            self._meter.create_observable_counter
            if metric.kind is Kind.OBSERVED_COUNTER
            else self._meter.create_observable_gauge
        )
        create(metric.name, [callback], metric.unit, metric.description)

    def include(self, other: Collector) -> None:
        """Show the families of ``other`` on the Prometheus endpoint too, under their own names."""
        self.registry.register(_Families(lambda: filter(_is_own, other.collect())))

    def _recorded(self) -> list[Family]:
        counters, histograms = tuple(self._counters.values()), tuple(self._histograms.values())
        data = [*(counter.data() for counter in counters), *(histogram.data() for histogram in histograms)]
        data += [_observed(metric, read) for metric, read in tuple(self._observed)]
        return [family(metric) for metric in data if metric.data.data_points]

    def shutdown(self) -> None:
        """Send what is left to the collector, if there is one. Blocks."""
        self.provider.shutdown()


class _Families(Collector):
    """Families from elsewhere."""

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families()


def _readings(metric: Metric, read: Callable[[], Iterable[Reading]]) -> list[Reading]:
    try:
        return [(value, dict(attributes)) for value, attributes in read()]
    except Exception:  # whatever it is, a scrape must not be lost by one of its metrics
        _LOGGER.exception("cannot read %s", metric.name)
        return []


def _observed(metric: Metric, read: Callable[[], Iterable[Reading]]) -> MetricData:
    """What is read now; of what has the same attributes, the last one counts, as in the SDK."""
    now_ns = time.time_ns()
    latest = {frozenset(attributes.items()): (value, attributes) for value, attributes in _readings(metric, read)}
    points = [NumberDataPoint(dict(attributes), 0, now_ns, value) for value, attributes in latest.values()]
    if metric.kind is Kind.OBSERVED_COUNTER:
        total = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        return MetricData(metric.name, metric.description, metric.unit, total)
    return MetricData(metric.name, metric.description, metric.unit, Gauge(points))


def _is_own(family: Family) -> bool:
    """Whether a family is of a library, and not of the process, which this registry describes already."""
    return not family.name.startswith(("process_", "python_"))
