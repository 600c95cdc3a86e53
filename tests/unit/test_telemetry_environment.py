from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from grpc import Compression
from prometheus_client import generate_latest

from tests.fakes.collector import collecting
from tests.fakes.patience import PATIENCE_S
from tidegate.telemetry import catalogue
from tidegate.telemetry import environment as told
from tidegate.telemetry.environment import UnusableExporterError
from tidegate.telemetry.setup import Telemetry, setup
from tidegate.telemetry.spans import SERVER, Form, NoTracer, RecordingTracer, Span

_NOBODY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without what the machine says, and with a batch that is given up soon."""
    for name in tuple(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "0.1")
    return monkeypatch


def made(endpoint: str | None = _NOBODY) -> Telemetry:
    """What a service traces and measures with, and has ended."""
    telemetry = setup("tidegate-test", endpoint=endpoint)
    telemetry.shutdown()
    return telemetry


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"])
@pytest.mark.parametrize("text", ["10s", "0", "-1", "nan", "inf", ""])
def test_a_number_that_is_none_is_told_and_not_obeyed(
    environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, text: str
) -> None:
    """A line in the log, and not a library's traceback in place of a gateway. What is empty is not set."""
    environ.setenv(name, text)
    assert isinstance(made().tracer, RecordingTracer)
    assert 10.0 == told.timeout_s("TRACES")
    assert (f"{name}={text} is no number above 0" in caplog.text) is bool(text)
    assert text == os.environ[name]


async def test_metrics_are_pushed_whatever_their_variables_say(
    environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As spans are."""
    environ.setenv("OTEL_METRICS_EXPORTER", "otlp")
    environ.setenv("OTEL_METRIC_EXPORT_INTERVAL", "0")
    environ.setenv("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "zstd")
    async with collecting() as collector:  # which knows no metrics, and says so at once
        await asyncio.to_thread(made, collector.endpoint)
    assert "OTEL_METRIC_EXPORT_INTERVAL=0 is no number above 0" in caplog.text
    assert "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION=zstd is not known" in caplog.text


def test_a_timeout_of_one_signal_goes_over_that_of_all(environ: pytest.MonkeyPatch) -> None:
    """As OpenTelemetry has it."""
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "7")
    environ.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0.5")
    environ.delenv("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT")
    assert (0.5, 7.0) == (told.timeout_s("TRACES"), told.timeout_s("METRICS"))


@pytest.mark.parametrize(
    ("of_all", "of_traces", "expected", "is_told"),
    [
        ("zstd", "", Compression.NoCompression, True),
        ("none", "", Compression.NoCompression, False),
        ("", "", Compression.NoCompression, False),
        ("gzip", "", Compression.Gzip, False),
        ("gzip", "none", Compression.NoCompression, False),
        ("gzip", "br", Compression.Gzip, True),
    ],
)
def test_a_compression_that_is_none_is_told(
    environ: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    of_all: str,
    of_traces: str,
    expected: Compression,
    *,
    is_told: bool,
) -> None:
    """The SDK's exporter knows gzip, and ends with a traceback on everything else, none among it."""
    environ.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", of_all)
    environ.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", of_traces)
    assert isinstance(made().tracer, RecordingTracer)
    caplog.clear()
    assert expected is told.compression("TRACES")
    assert is_told is ("is not known, of none, gzip" in caplog.text)


@pytest.mark.parametrize(
    ("text", "is_pushed", "is_told"),
    [
        ("otlp", True, False),
        ("prometheus, OTLP", True, False),
        ("prometheus", False, False),
        ("none", False, False),
        ("", False, False),
        ("console", False, True),
        ("otpl", False, True),
    ],
)
def test_an_exporter_of_metrics_that_there_is_not_is_told(
    environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str, *, is_pushed: bool, is_told: bool
) -> None:
    """Several may be named; Prometheus' is the admin port."""
    environ.setenv("OTEL_METRICS_EXPORTER", text)
    assert is_pushed is told.is_sent("METRICS", default=False)
    assert is_told is (f"OTEL_METRICS_EXPORTER: {text} is not known" in caplog.text)


@pytest.mark.parametrize(("text", "is_traced"), [("none", False), ("otlp", True), ("zipkin", True), ("", True)])
def test_spans_that_nobody_wants_are_not_recorded(environ: pytest.MonkeyPatch, text: str, *, is_traced: bool) -> None:
    """Though it is known where they could go."""
    environ.setenv("OTEL_TRACES_EXPORTER", text)
    environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", _NOBODY)
    assert is_traced is isinstance(made(None).tracer, RecordingTracer)


def test_a_protocol_that_is_not_spoken_is_told(environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Its port would answer our gRPC with something that nobody understands."""
    environ.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    made()
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf is not known: grpc" in caplog.text


def test_with_the_sdk_disabled_nothing_is_sent_and_the_admin_port_shows_all(environ: pytest.MonkeyPatch) -> None:
    """Spans went out all the same, and of the metrics those were missing that are read, like a worker's blocks."""
    environ.setenv("OTEL_SDK_DISABLED", "True")
    environ.setenv("OTEL_METRICS_EXPORTER", "otlp")
    telemetry = setup("tidegate-test", endpoint=_NOBODY)
    telemetry.metrics.observe(catalogue.OPEN_SPANS, lambda: [(7, {})])
    telemetry.metrics.counter(catalogue.TRACE_SPANS).under({"tidegate.outcome": "sent"}).add(2)
    assert (NoTracer, None) == (type(telemetry.tracer), telemetry.export)
    shown = generate_latest(telemetry.metrics.registry).decode()
    assert f"\n{catalogue.OPEN_SPANS.prometheus_name} 7.0\n" in shown
    telemetry.shutdown()


def test_an_exporter_that_cannot_be_made_says_why() -> None:
    """Whatever it is."""
    with pytest.raises(UnusableExporterError, match="no exporter of traces can be made: Invalid IPv6 URL"):
        setup("tidegate-test", endpoint="http://[x")


@pytest.mark.parametrize(
    "command",
    [("gateway", "--workers", "a:1"), ("worker", "--engine", "sim")],
    ids=["gateway", "worker"],
)
def test_a_service_whose_exporter_cannot_be_made_ends_with_a_line(command: tuple[str, ...]) -> None:
    """And with the code of settings that cannot be used."""
    ended = subprocess.run(
        [sys.executable, "-m", *command, "--listen", "127.0.0.1:0", "--otlp-endpoint", "http://[x"],
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (2, 1) == (ended.returncode, ended.stderr.count(b"\n")), ended.stderr
    assert b"no exporter of traces can be made: Invalid IPv6 URL" in ended.stderr


async def test_what_is_compressed_arrives(environ: pytest.MonkeyPatch) -> None:
    """With gzip, and a number of seconds for one signal."""
    environ.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
    environ.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "60")
    async with collecting() as collector:
        telemetry = collector.telemetry("tidegate-test")
        span = telemetry.tracer.begin(Form("probe", SERVER), ())
        assert isinstance(span, Span)
        span.end()
        await asyncio.to_thread(telemetry.shutdown)
    assert ["probe"] == [one.span.name for one in collector.spans]
