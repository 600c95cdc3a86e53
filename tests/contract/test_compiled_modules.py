from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult

from tests.fakes.running_gateway import running_gateway, text_request
from tests.fakes.running_worker import running_worker
from tidegate.inference.v1 import chat_pb2, inference_service_pb2
from tidegate.native.choice import ROOT
from tidegate.native.modules import MODULES, source_of
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.sampling import Sampler
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.span_export import SpanExport
from tidegate.telemetry.spans import RecordingTracer

# What runs with each request and is not compiled, and why. Of the worker's package only its recording is compiled, and
# that the package has something on the list is a test of its own.
_IS_OF_REPORTS, _IS_OF_TIMERS = "load reports wake it, and not requests", "a timer wakes it"
_NOT_COMPILED = {
    "gateway.decision_log": _IS_OF_TIMERS,
    "gateway.renderer": "mypyc's classes have no weak references, by which workers of a checkpoint share one",
    "gateway.resume": "looks at two fields, unless the client asks for a token, which a library signs",
    "gateway.workers.connection": _IS_OF_REPORTS,
    "gateway.workers.load_watch": _IS_OF_REPORTS,
    "gateway.workers.reconnection": _IS_OF_REPORTS,
    "tidegate.rpc.server": _IS_OF_REPORTS,
    "tidegate.rpc.telemetry": _IS_OF_REPORTS,
    "tidegate.telemetry.labels": "looks a tenant up in a set",
    "tidegate.telemetry.loop_lag": _IS_OF_TIMERS,
}
_CALLS = 4


class Collector:
    """Takes all spans."""

    def export(self, spans: Sequence[bytes], /) -> SpanExportResult:
        """See ``Exporter``."""
        del spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """See ``Exporter``."""


class Ran:
    """The files of which something ran since it was forgotten, in threads that began since, too."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """For ``sys.setprofile``."""
        del event, argument
        self.files.add(frame.f_code.co_filename)


@contextmanager
def watched() -> Iterator[Ran]:
    """What runs in the meantime."""
    ran, before = Ran(), sys.getprofile()
    threading.setprofile(ran)
    sys.setprofile(ran)
    try:
        yield ran
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def traced() -> Telemetry:
    """Records each call, and writes its spans when it ends."""
    export = SpanExport(Collector())
    tracer = RecordingTracer(Sampler(share=1.0, is_parent_heard=True), export)
    return Telemetry(tracer=tracer, metrics=Metrics(), export=export)


def chat_request() -> inference_service_pb2.GenerateRequest:
    """A small valid conversation."""
    message = chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_USER, content="Hi")
    request = inference_service_pb2.GenerateRequest(model="sim", chat=chat_pb2.ChatPrompt(messages=[message]))
    request.sampling.max_output_tokens = 8
    return request


async def test_what_runs_for_every_request_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that falls off the list, in a merge perhaps, costs speed and breaks nothing: nobody would notice.

    What runs in one of several equal calls and not in all of them is not theirs. On a slow machine timers run in all.
    """
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    always: set[str] = set()
    with watched() as ran:
        async with (
            running_worker(telemetry=traced()) as worker,
            running_gateway(worker.worker.address, telemetry=traced()) as gateway,
        ):
            for request in (text_request(model="sim"), chat_request()):
                seen: list[set[str]] = []
                for _ in range(_CALLS):
                    ran.files.clear()
                    _, error = await gateway.generate(request)
                    assert error is None
                    seen.append(set(ran.files))
                always |= set.intersection(*seen)
    packages = {(ROOT / source_of(module)).parent for module in MODULES} - {ROOT / "worker"}
    modules = {_module_of(file) for file in always if Path(file).parent in packages}
    assert set() == modules - {*MODULES, *_NOT_COMPILED}


def test_what_is_not_compiled_is_not_on_the_list() -> None:
    """Once it is compiled, nobody needs to be told why it is not."""
    assert set() == {*MODULES} & {*_NOT_COMPILED}


def _module_of(file: str) -> str:
    return ".".join(Path(file).relative_to(ROOT).with_suffix("").parts)
