from __future__ import annotations

import importlib.metadata
import pkgutil
from enum import Enum
from typing import Any

import opentelemetry.semconv._incubating.attributes as attribute_modules
import opentelemetry.semconv._incubating.metrics as metric_modules
import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.semconv.schemas import Schemas
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.spans import standing_in
from tidegate.telemetry import catalogue, conventions
from tidegate.telemetry.labels import BoundedLabels
from tidegate.telemetry.metric import Kind, Metric, prometheus_name
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.trace_context import SAMPLED, UNSAMPLED, TraceContext

_WAIT = Metric(name="tidegate.wait", kind=Kind.HISTOGRAM, unit="s", description="W.", buckets=(1.0, 10.0))
_SIZE = Metric(name="tidegate.size", kind=Kind.OBSERVED_GAUGE, unit="By", description="S.", attributes=("a.b",))
_CALLS = Metric(name="tidegate.calls", kind=Kind.COUNTER, unit="{call}", description="C.", attributes=("a.b",))
_LOSSES = Metric(name="tidegate.losses", kind=Kind.COUNTER, unit="{loss}", description="L.")


def page(metrics: Metrics) -> str:
    """What an OpenMetrics scraper reads."""
    return str(openmetrics(metrics.registry).decode())  # type: ignore[no-untyped-call]


def exposed(metrics: Metrics) -> str:
    """The samples of our own families."""
    lines = page(metrics).splitlines()
    return "\n".join(line for line in lines if "tidegate" in line and not line.startswith("#"))


def standard_names() -> set[str]:
    """All names of the semantic conventions as installed."""
    names = set()
    for package in (attribute_modules, metric_modules):
        for found in pkgutil.iter_modules(package.__path__):
            module: Any = importlib.import_module(f"{package.__name__}.{found.name}")
            names |= {value for value in vars(module).values() if isinstance(value, str)}
            enums = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Enum)]
            names |= {member.value for enum in enums for member in enum}
    return names | {error_attributes.ERROR_TYPE, server_attributes.SERVER_ADDRESS}


def test_names_are_those_of_the_pinned_conventions() -> None:
    """Each constant that is not ours is in the installed package, whose version is the one the module names."""
    strings = {value for name, value in vars(conventions).items() if name.isupper() and isinstance(value, str)}
    ours = {
        name
        for name in strings
        if name.startswith(("tidegate", "https:", "validate", "queue", "route", "continuation"))
        or name == conventions.SEMCONV_VERSION
    }
    assert set() == strings - ours - standard_names()
    assert conventions.SCHEMA_URL in {schema.value for schema in Schemas}
    assert "0.66b2" == importlib.metadata.version("opentelemetry-semantic-conventions")
    assert "0.66b2" in (conventions.__doc__ or "")


@pytest.mark.parametrize("metric", {*catalogue.GATEWAY, *catalogue.WORKER}, ids=lambda metric: metric.name)
def test_every_metric_is_named_by_the_conventions_or_by_us(metric: Metric) -> None:
    """What is not OpenTelemetry's begins with tidegate."""
    assert metric.name.startswith("tidegate.") or metric.name in standard_names()


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        ("gen_ai.server.time_to_first_token", "s", "gen_ai_server_time_to_first_token_seconds"),
        ("tidegate.kv.blocks", "{block}", "tidegate_kv_blocks"),
        ("tidegate.kv.utilization", "1", "tidegate_kv_utilization_ratio"),
        ("tidegate.engine.rate", "{token}/s", "tidegate_engine_rate_tokens_per_second"),
    ],
)
def test_a_prometheus_name_ends_with_its_unit(name: str, unit: str, expected: str) -> None:
    """By the rules of OpenTelemetry for Prometheus."""
    assert expected == prometheus_name(name, unit)


def test_a_latency_carries_the_trace_that_it_came_from() -> None:
    """The bucket's exemplar names the span that was current when the value was recorded."""
    metrics = Metrics(exemplars=True)
    with standing_in(
        TraceContext(bytes.fromhex("00000000000000000000000000000abc"), bytes.fromhex("0000000000000def"), SAMPLED, "")
    ):
        metrics.histogram(_WAIT).under({}).record(5)
    (line,) = [line for line in exposed(metrics).splitlines() if 'le="10.0"' in line]
    assert f'trace_id="{0xABC:032x}"' in line
    assert f'span_id="{0xDEF:016x}"' in line
    assert line.startswith('tidegate_wait_seconds_bucket{le="10.0"} 1.0 #')


def test_a_latency_that_is_pushed_carries_its_trace_too() -> None:
    """OpenTelemetry's SDK is told of it, and of none where the trace is not recorded."""
    reader = InMemoryMetricReader()
    histogram = Metrics(readers=[reader], exemplars=True).histogram(_WAIT).under({})
    with standing_in(
        TraceContext(bytes.fromhex("00000000000000000000000000000abc"), bytes.fromhex("0000000000000def"), SAMPLED, "")
    ):
        histogram.record(5)
    with standing_in(
        TraceContext(
            bytes.fromhex("00000000000000000000000000000abd"), bytes.fromhex("0000000000000def"), UNSAMPLED, ""
        )
    ):
        histogram.record(50)
    data = reader.get_metrics_data()
    assert data is not None
    points = [
        point
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == _WAIT.name
        for point in metric.data.data_points
        if isinstance(point, HistogramDataPoint)
    ]
    assert [(0xABC, 0xDEF)] == [(one.trace_id, one.span_id) for point in points for one in point.exemplars]


def test_a_counter_of_one_series_begins_at_zero() -> None:
    """Its first increase is one that Prometheus can see."""
    metrics = Metrics()
    metrics.counter(_LOSSES)
    assert "tidegate_losses_total 0.0" == exposed(metrics)


def test_buckets_are_cumulative() -> None:
    """As Prometheus reads them."""
    metrics = Metrics()
    wait = metrics.histogram(_WAIT).under({})
    for value in (0.5, 5, 50, 51):
        wait.record(value)
    buckets = [line.split(" ")[1] for line in exposed(metrics).splitlines() if "_bucket" in line]
    assert ["1.0", "2.0", "4.0"] == buckets
    assert "tidegate_wait_seconds_sum 106.5" in exposed(metrics)


def test_state_is_read_when_somebody_looks() -> None:
    """An observer is asked at each collection, and what it says then is shown."""
    metrics, sizes = Metrics(), {"x": 1.0}
    metrics.observe(_SIZE, lambda: [(size, {"a.b": name}) for name, size in sizes.items()])
    assert 'tidegate_size_bytes{a_b="x"} 1.0' == exposed(metrics)
    sizes["x"] = 2
    assert 'tidegate_size_bytes{a_b="x"} 2.0' == exposed(metrics)


def test_an_observer_that_fails_costs_its_own_metric_only(caplog: pytest.LogCaptureFixture) -> None:
    """The rest of the page is served, and the log says what is missing."""
    metrics = Metrics()
    metrics.observe(_SIZE, lambda: [(1 / 0, {})])
    metrics.counter(_CALLS).under({"a.b": "x"}).add(3)
    assert 'tidegate_calls_total{a_b="x"} 3.0' == exposed(metrics)
    assert "cannot read tidegate.size" in caplog.text


def test_another_registry_is_shown_unrenamed() -> None:
    """The metrics of vLLM come out as they went in; what describes the process comes once."""
    other, metrics = Metrics(), Metrics()
    other.counter(_CALLS).under({}).add(1)
    metrics.include(other.registry)
    assert "tidegate_calls_total 1.0" in exposed(metrics)
    families = text_string_to_metric_families(page(metrics))
    assert 1 == sum(family.name == "python_info" for family in families)


def test_the_values_of_a_label_are_bounded() -> None:
    """The first ones are named, and keep their names; the later ones are other."""
    labels = BoundedLabels(limit=2)
    assert ["a", "b", "other", "a", "other"] == [labels.label(value) for value in ("a", "b", "c", "a", "c")]


def test_a_bucket_shows_the_first_value_since_it_was_looked_at() -> None:
    """What comes between two scrapes is told by one of its traces; before the next one there is another."""
    metrics = Metrics(exemplars=True)
    wait = metrics.histogram(_WAIT).under({})
    shown = []
    for round_ in (1, 3):
        for number in (round_, round_ + 1):
            with standing_in(TraceContext(bytes([number] * 16), b"of eight", SAMPLED, "")):
                wait.record(5)
        (line,) = [line for line in exposed(metrics).splitlines() if 'le="10.0"' in line]
        shown.append(line.partition('trace_id="')[2][:2])
    assert ["01", "03"] == shown
