from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.trace.export import SpanExportResult

from tests.fakes.patience import PATIENCE_S
from tidegate.telemetry import span_export
from tidegate.telemetry.sampling import Sampler
from tidegate.telemetry.span_export import SpanExport
from tidegate.telemetry.spans import SERVER, Facts, Form, Names, RecordingTracer, Span


class Collector:
    """Takes batches, or refuses them."""

    def __init__(self, *, takes: bool = True) -> None:
        self.takes = takes
        self.batches: list[list[str]] = []
        self.was_asked = threading.Event()
        self.has_ended = False

    def export(self, spans: Sequence[bytes], /) -> SpanExportResult:
        """See ``Exporter``."""
        self.batches.append([span.name for span in ScopeSpans.FromString(b"".join(spans)).spans])
        self.was_asked.set()
        return SpanExportResult.SUCCESS if self.takes else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """See ``Exporter``."""
        self.has_ended = True


class SlowCollector(Collector):
    """One that takes a batch, and does not say so before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()

    def export(self, spans: Sequence[bytes], /) -> SpanExportResult:
        """See ``Collector``."""
        result = super().export(spans)
        self.may_answer.wait(PATIENCE_S)
        return result


class DownCollector(SlowCollector):
    """One that fails twice, and then does not answer."""

    def export(self, spans: Sequence[bytes], /) -> SpanExportResult:
        """See ``Collector``."""
        if len(self.batches) > 1:
            super().export(spans)
        else:
            Collector.export(self, spans)
        return SpanExportResult.FAILURE


class BrokenCollector(Collector):
    """One that does not even fail as it should, the first time."""

    def export(self, spans: Sequence[bytes], /) -> SpanExportResult:
        """See ``Collector``."""
        result = super().export(spans)
        if len(self.batches) == 1:
            raise ValueError
        return result


class Warned(logging.Handler):
    """Waits for the second line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.twice = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        self.lines.append(record.getMessage())
        if len(self.lines) > 1:
            self.twice.set()


@contextmanager
def exporting(collector: Collector) -> Iterator[tuple[SpanExport, RecordingTracer]]:
    """An export to ``collector``, and a tracer that records all for it."""
    export = SpanExport(collector)
    try:
        yield export, RecordingTracer(Sampler(share=1.0, is_parent_heard=True), export)
    finally:
        export.shutdown()


def ended(tracer: RecordingTracer, *calls: str) -> None:
    """Calls that have come and gone."""
    for call in calls:
        span = tracer.begin(Form(call, SERVER), ())
        assert isinstance(span, Span)
        span.end()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two, a queue of three, and an hour between batches that are not full."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "3")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")


def test_a_full_batch_is_sent_at_once() -> None:
    """Nobody asks for it."""
    collector = Collector()
    with exporting(collector) as (_, tracer):
        ended(tracer, "a", "b")
        assert collector.was_asked.wait(PATIENCE_S)
    assert [["a", "b"]] == collector.batches


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5"])
def test_a_variable_that_is_no_number_is_not_obeyed(
    value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in the log, and the service starts."""
    for name in ("MAX_EXPORT_BATCH_SIZE", "MAX_QUEUE_SIZE", "SCHEDULE_DELAY"):
        monkeypatch.setenv(f"OTEL_BSP_{name}", value)
    collector = Collector()
    with exporting(collector) as (_, tracer):
        ended(tracer, "a")
    assert [["a"]] == collector.batches
    assert f"OTEL_BSP_MAX_QUEUE_SIZE={value} is no number from 1: 2048" in caplog.text


def test_what_is_left_is_sent_at_the_end() -> None:
    """In the order in which the spans ended; then the exporter ends, too."""
    collector = Collector()
    with exporting(collector) as (export, tracer):
        ended(tracer, "a")
        assert [] == collector.batches
    assert [["a"]] == collector.batches
    assert {"sent": 1, "failed": 0, "dropped": 0} == export.counts
    assert collector.has_ended


def test_a_collector_that_takes_nothing_is_left_alone_for_a_while() -> None:
    """A batch is lost, and what comes then waits; at the end it is not tried again."""
    collector = Collector(takes=False)
    with exporting(collector) as (export, tracer):
        ended(tracer, "a", "b")
        assert collector.was_asked.wait(PATIENCE_S)
        ended(tracer, "c")
    assert [["a", "b"]] == collector.batches
    assert {"sent": 0, "failed": 2, "dropped": 1} == export.counts


def test_no_trace_begins_while_the_queue_is_full() -> None:
    """It costs nothing more than a call that is not sampled, and counts as one span that was dropped."""
    collector = SlowCollector()
    with exporting(collector) as (export, tracer):
        ended(tracer, "a", "b")
        assert collector.was_asked.wait(PATIENCE_S)
        ended(tracer, "c", "d", "e")
        refused = tracer.begin(Form("f", SERVER), ())
        assert (None, 1) == (refused, export.counts["dropped"])
        collector.may_answer.set()
    assert {"sent": 5, "failed": 0, "dropped": 1} == export.counts


def test_next_to_nothing_is_recorded_for_a_collector_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again with a few spans, and not with as many as a queue holds."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1000")
    monkeypatch.setattr(span_export, "_FIRST_PAUSE_S", 0.001)
    collector, warned = DownCollector(), Warned()
    logger = logging.getLogger(span_export.__name__)
    logger.addHandler(warned)
    try:
        with exporting(collector) as (export, tracer):
            ended(tracer, "a", "b", "c", "d")
            assert warned.twice.wait(PATIENCE_S)
            recorded = 0
            while (span := tracer.begin(Form("e", SERVER), ())) is not None:
                assert isinstance(span, Span)
                span.end()
                recorded += 1
            assert 64 <= recorded <= 66  # two may be on their way
            assert 1 == export.counts["dropped"]
            collector.may_answer.set()
    finally:
        logger.removeHandler(warned)


def test_a_span_that_ends_while_the_queue_is_full_is_dropped() -> None:
    """The queue has a bound for spans that had begun before, too."""
    collector = SlowCollector()
    with exporting(collector) as (export, tracer):
        late = tracer.begin(Form("late", SERVER), ())
        ended(tracer, "a", "b")
        assert collector.was_asked.wait(PATIENCE_S)
        ended(tracer, "c", "d", "e")
        assert isinstance(late, Span)
        late.end()
        assert 1 == export.counts["dropped"]
        collector.may_answer.set()
    assert "late" not in [name for batch in collector.batches for name in batch]


def test_spans_that_end_after_the_end_are_counted() -> None:
    """They go nowhere."""
    collector = Collector()
    with exporting(collector) as (export, tracer):
        late = tracer.begin(Form("late", SERVER), ())
    assert isinstance(late, Span)
    late.end()
    assert {"sent": 0, "failed": 0, "dropped": 1} == export.counts


@pytest.mark.parametrize("value", ["\ud800", 1 << 64, None], ids=["no text", "no number", "no value"])
def test_a_span_that_cannot_be_written_fails_alone(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Not the call that ends it, nor one that ends the next; those that end beside it are sent."""
    collector = Collector()
    with exporting(collector) as (export, tracer):
        for call, told in {"a": 1, "b": value, "c": value, "d": value, "e": 2}.items():
            span = tracer.begin(Form(call, SERVER), ())
            assert isinstance(span, Span)
            span.set(Facts(Names("told"), (told,)))
            span.end()
    assert ["a", "e"] == [name for batch in collector.batches for name in batch]
    assert {"sent": 2, "failed": 3, "dropped": 0} == export.counts
    assert ["b", "c"] == [line.split()[1] for line in caplog.messages]  # the first, the second, the fourth ...


def test_spans_are_sent_after_an_exporter_that_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is lost, and the thread goes on."""
    monkeypatch.setattr(span_export, "_FIRST_PAUSE_S", 0.001)
    collector = BrokenCollector()
    with exporting(collector) as (export, tracer):
        ended(tracer, "a", "b")
        assert collector.was_asked.wait(PATIENCE_S)
        collector.was_asked.clear()
        ended(tracer, "c", "d")
        assert collector.was_asked.wait(PATIENCE_S)
    assert ["a", "b", "c", "d"] == [name for batch in collector.batches for name in batch]
    assert {"sent": 2, "failed": 2, "dropped": 0} == export.counts
