"""What a service sets up to send its spans: to a collector, or not, and what is told of those that do not get there."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.fakes.collector import collecting
from tests.fakes.patience import PATIENCE_S
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.setup import Telemetry, setup
from tidegate.telemetry.spans import SERVER, Form, NoTracer, Span


def ended(telemetry: Telemetry, name: str) -> None:
    """A call has come and gone."""
    span = telemetry.tracer.begin(Form(name, SERVER), ())
    assert isinstance(span, Span)
    span.end()


def counted(telemetry: Telemetry) -> dict[str, float]:
    """Spans by what became of them, as the admin port shows them."""
    families = {family.name: family for family in telemetry.metrics.registry.collect()}
    samples = families["tidegate_trace_spans"].samples
    return {sample.labels["tidegate_outcome"]: sample.value for sample in samples}


async def test_spans_reach_the_collector_with_the_services_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are sent by OTLP, and what OTEL_RESOURCE_ATTRIBUTES says is added to our own names."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with collecting() as collector:
        telemetry = collector.telemetry("tidegate-test")
        ended(telemetry, "probe")
        await asyncio.to_thread(telemetry.shutdown)
    (named,) = collector.resources
    assert ["probe"] == [span.span.name for span in collector.spans]
    assert ("tidegate-test", "test") == (named["service.name"], named["deployment.environment.name"])
    assert {"service.version", "service.instance.id"} <= named.keys()


def test_no_endpoint_means_no_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that nobody told of a collector starts no exporter and no thread."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    telemetry = setup("tidegate-test")
    assert telemetry.export is None
    telemetry.shutdown()


@pytest.mark.parametrize(
    ("sampler", "begins_traces", "is_recorded"),
    [
        (None, True, True),
        (None, False, False),
        ("parentbased_always_on", False, False),
        ("always_on", False, True),
        ("always_off", True, False),
    ],
)
def test_a_service_behind_another_begins_no_traces(
    monkeypatch: pytest.MonkeyPatch, sampler: str | None, *, begins_traces: bool, is_recorded: bool
) -> None:
    """Unless its sampler says so, which then hears no caller; what its caller records it records in any case."""
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)
    if sampler is not None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    telemetry = setup("tidegate-test", endpoint="http://127.0.0.1:1", begins_traces=begins_traces)
    assert is_recorded is isinstance(telemetry.tracer.begin(Form("call"), ()), Span)
    telemetry.shutdown()


@pytest.mark.parametrize(("rejected", "sent", "failed"), [(0, 3, 0), (1, 2, 1), (9, 0, 3), (-1, 3, 0)])
async def test_spans_that_a_collector_rejects_are_not_counted_as_sent(
    caplog: pytest.LogCaptureFixture, rejected: int, sent: int, failed: int
) -> None:
    """It takes the batch, and says that it has kept a part of it only; its reason is logged."""
    async with collecting() as collector:
        collector.rejected = rejected
        telemetry = collector.telemetry("tidegate-test")
        for _ in range(3):
            ended(telemetry, "probe")
        await asyncio.to_thread(telemetry.shutdown)
    assert {"sent": sent, "failed": failed, "dropped": 0} == counted(telemetry)
    assert (f"the collector has rejected {rejected} spans: too large" in caplog.text) is (rejected != 0)


async def test_a_dead_collector_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans that could not be sent are counted."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0.2")
    telemetry = setup("tidegate-test", endpoint="http://127.0.0.1:1")
    ended(telemetry, "probe")
    await asyncio.to_thread(telemetry.shutdown)
    assert {"sent": 0, "failed": 1, "dropped": 0} == counted(telemetry)


class StuckReader(InMemoryMetricReader):
    """Its collector does not answer when all ends."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = threading.Event()
        self.may_end = threading.Event()

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """See ``MetricReader``."""
        del timeout_millis, kwargs
        self.is_asked.set()
        self.may_end.wait(PATIENCE_S)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_further_signal_gives_up_what_is_left_to_send(signum: signal.Signals) -> None:
    """The first one has ended what was served; the second one was a traceback, after the same time."""
    reader = StuckReader()
    ending = asyncio.create_task(Telemetry(tracer=NoTracer(), metrics=Metrics(readers=[reader])).end())
    await asyncio.to_thread(reader.is_asked.wait, PATIENCE_S)
    assert not ending.done()
    os.kill(os.getpid(), signum)
    await asyncio.wait_for(ending, PATIENCE_S)
    assert not reader.may_end.is_set()
    reader.may_end.set()


async def test_the_end_waits_for_what_is_left_to_send() -> None:
    """As long as nobody is in a hurry."""
    async with collecting() as collector:
        telemetry = collector.telemetry("tidegate-test")
        ended(telemetry, "probe")
        await telemetry.end()
    assert ["probe"] == [span.span.name for span in collector.spans]
