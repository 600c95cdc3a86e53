from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from tidegate.telemetry.metric import Kind, Metric
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.recorder import MAX_SERIES, CounterSeries, Recorded

_WAIT = Metric(name="tidegate.wait", kind=Kind.HISTOGRAM, unit="s", description="W.", buckets=(0.5, 1.0, 10.0))
_CALLS = Metric(name="tidegate.calls", kind=Kind.COUNTER, unit="{call}", description="C.", attributes=("a.b", "c"))

_VALUES = st.one_of(st.sampled_from((0.0, 0.5, 1.0, 10.0)), st.floats(0, 100))
_ATTRIBUTES = st.dictionaries(st.sampled_from(("a.b", "c")), st.sampled_from("xyz"))


def page(metrics: Metrics) -> list[str]:
    """The samples of our own families."""
    lines = openmetrics(metrics.registry).decode().splitlines()  # type: ignore[no-untyped-call]
    return sorted(line for line in lines if line.startswith("tidegate"))


@given(st.lists(st.tuples(_VALUES, _ATTRIBUTES), max_size=20))
def test_a_page_is_the_same_as_from_the_sdk(recorded: list[tuple[float, dict[str, str]]]) -> None:
    """Whether metrics are pushed as well, and so aggregated by OpenTelemetry's SDK, or not."""
    pages = []
    for readers in ((), (InMemoryMetricReader(),)):
        metrics = Metrics(readers=readers)
        waits, calls = metrics.histogram(_WAIT), metrics.counter(_CALLS)
        for value, attributes in recorded:
            waits.under(attributes).record(value)
            calls.under(attributes).add(value)
        pages.append(page(metrics))
        metrics.shutdown()
    assert pages[0] == pages[1]


def test_what_is_pushed_reaches_the_reader() -> None:
    """Values and attributes, through the SDK."""
    reader = InMemoryMetricReader()
    metrics = Metrics(readers=(reader,))
    metrics.counter(_CALLS).under({"a.b": "x"}).add(2)
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    assert ("tidegate.calls", {"a.b": "x"}) == (metric.name, point.attributes)


def test_the_order_of_attributes_does_not_matter() -> None:
    """One series for one set of them."""
    calls = Recorded(_CALLS, CounterSeries)
    assert calls.under({"a.b": "x", "c": "y"}) is calls.under({"c": "y", "a.b": "x"})


def test_the_number_of_series_is_bounded() -> None:
    """What comes under further attributes is counted together, under the attribute that OpenTelemetry has for it."""
    calls = Recorded(_CALLS, CounterSeries)
    for number in range(MAX_SERIES + 3):
        calls.under({"c": str(number)}).add(1)
    points = calls.data().data.data_points
    assert MAX_SERIES + 1 == len(points)
    assert [3] == [point.value for point in points if point.attributes == {"otel.metric.overflow": "true"}]  # type: ignore[union-attr]


def test_no_value_is_lost_between_threads() -> None:
    """Counts and sum are of all of them."""
    wait = Metrics().histogram(_WAIT)

    def record() -> None:
        for _ in range(2000):
            wait.under({}).record(0.25)

    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(record)
    assert isinstance(wait, Recorded)
    (point,) = wait.data().data.data_points
    assert (8000, 2000.0) == (point.count, point.sum)  # type: ignore[union-attr]
