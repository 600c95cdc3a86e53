from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

from tests.fakes.http2_peer import REQUEST
from tests.fakes.patience import PATIENCE_S
from tidegate.http2.frames import PREFACE
from tidegate.http2.messages import framed
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.served_calls import ServedCalls
from tidegate.rpc.server import ErrorInterceptor
from tidegate.rpc.status import INFERENCE_DOMAIN, RpcError
from tidegate.rpc.telemetry import TraceInterceptor
from tidegate.telemetry.sampling import Sampler
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.spans import SERVER, NoTracer, RecordingTracer, Span, Tracer
from tidegate.telemetry.trace_context import current

_GENERATE = "tidegate.inference.v1.InferenceService/Generate"
_TOKENIZE = "tidegate.inference.v1.InferenceService/Tokenize"
_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
_TRACEPARENT = f"00-{_TRACE_ID}-b7ad6b7169203331-01"

_Stub = Any  # mypy-protobuf's name for the asyncio form exists for type checkers only
_Call = Callable[[_Stub], Awaitable[None]]


class EndedSpans:
    """Hands over spans as they end."""

    def __init__(self) -> None:
        self.ended: deque[Span] = deque()
        self.cohort = 1
        self._spans: asyncio.Queue[Span] = asyncio.Queue()

    def has_room(self) -> bool:
        return True

    def take(self) -> None:
        self._spans.put_nowait(self.ended.popleft())

    async def next(self) -> Span:
        return await asyncio.wait_for(self._spans.get(), PATIENCE_S)

    @property
    def is_empty(self) -> bool:
        return self._spans.empty()


class Refusal(Exception):  # noqa: N818 - not an error of ours
    """Becomes the status that it holds."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code


def to_rpc(error: Exception) -> RpcError:
    """The error table of the service under test."""
    code = error.code if isinstance(error, Refusal) else grpc.StatusCode.INTERNAL
    return RpcError(code=code, reason="TEST", domain=INFERENCE_DOMAIN, message="refused")


class ScriptedService(inference_service_pb2_grpc.InferenceServiceServicer):
    """Tokenize and Generate call ``script``; Generate streams without end when it has none."""

    def __init__(self, script: Callable[[], None] | None = None) -> None:
        self._script = script
        self.seen_metadata: tuple[tuple[str, str], ...] = ()

    async def Tokenize(self, request: Any, context: Any) -> inference_service_pb2.TokenizeResponse:
        self.seen_metadata = _outgoing()
        if self._script is not None:
            self._script()
        return inference_service_pb2.TokenizeResponse(token_count=1)

    async def Generate(self, request: Any, context: Any) -> AsyncGenerator[inference_service_pb2.GenerateResponse]:
        yield inference_service_pb2.GenerateResponse()
        self.seen_metadata = _outgoing()
        if self._script is not None:
            self._script()
            return
        while True:
            await asyncio.sleep(0.001)
            yield inference_service_pb2.GenerateResponse()

    async def ListModels(self, request: Any, context: Any) -> inference_service_pb2.ListModelsResponse:
        raise NotImplementedError

    async def GetModel(self, request: Any, context: Any) -> inference_service_pb2.GetModelResponse:
        raise NotImplementedError


def _outgoing() -> tuple[tuple[str, str], ...]:
    context = current()
    return () if context is None else context.metadata


@asynccontextmanager
async def listening(service: ScriptedService, tracer: Tracer) -> AsyncIterator[int]:
    """The port of a server of ``service`` that traces to ``tracer``."""
    server = grpc.aio.server(
        interceptors=(
            TraceInterceptor(ServedCalls(Telemetry.silent(tracer))),
            ErrorInterceptor(to_rpc, logging.getLogger("test")),
        )
    )
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@asynccontextmanager
async def serving(service: ScriptedService, tracer: Tracer) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it."""
    async with (
        listening(service, tracer) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


@pytest.fixture
def spans() -> EndedSpans:
    """The spans that end in a test."""
    return EndedSpans()


@pytest.fixture
def tracer(spans: EndedSpans) -> Tracer:
    """A tracer that records all calls."""
    return RecordingTracer(Sampler(share=1.0, is_parent_heard=True), spans)


async def tokenize(stub: _Stub) -> None:
    """Call the unary method."""
    await stub.Tokenize(inference_service_pb2.TokenizeRequest())


async def generate(stub: _Stub) -> None:
    """Call the streaming method and read to the end."""
    async for _ in stub.Generate(inference_service_pb2.GenerateRequest()):
        pass


async def test_answered_call_has_a_server_span_with_status_ok(spans: EndedSpans, tracer: Tracer) -> None:
    """A span is named after its method and uses the names of the RPC conventions."""
    async with serving(ScriptedService(), tracer) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        await stub.Tokenize(inference_service_pb2.TokenizeRequest())
    span = await spans.next()
    assert (_TOKENIZE, SERVER, False) == (span.name, span.form.kind, span.has_failed)
    assert {"rpc.system.name": "grpc", "rpc.method": _TOKENIZE, "rpc.response.status_code": "OK"} == span.attributes


async def test_finished_stream_has_a_span_with_status_ok(spans: EndedSpans, tracer: Tracer) -> None:
    """A stream's span ends with the stream, not with its first message."""
    was_open: list[bool] = []
    async with serving(ScriptedService(lambda: was_open.append(spans.is_empty)), tracer) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        await generate(stub)
    assert [True] == was_open
    assert "OK" == (await spans.next()).attributes["rpc.response.status_code"]


async def test_span_continues_the_callers_trace(spans: EndedSpans, tracer: Tracer) -> None:
    """The incoming traceparent is the span's parent, and the span the parent of calls that the handler makes."""
    service = ScriptedService()
    async with serving(service, tracer) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        metadata = (("traceparent", _TRACEPARENT), ("tracestate", "vendor=1"))
        await stub.Tokenize(inference_service_pb2.TokenizeRequest(), metadata=metadata)
    span = await spans.next()
    assert "b7ad6b7169203331" == span.parent_id.hex()
    expected = (("traceparent", f"00-{_TRACE_ID}-{span.span_id.hex()}-01"), ("tracestate", "vendor=1"))
    assert expected == service.seen_metadata


@pytest.mark.parametrize("metadata", [(), (("traceparent", "00-nonsense"),)])
async def test_span_without_a_usable_parent_begins_a_trace(
    spans: EndedSpans, tracer: Tracer, metadata: tuple[tuple[str, str], ...]
) -> None:
    """A malformed traceparent is as good as none."""
    async with serving(ScriptedService(), tracer) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        await stub.Tokenize(inference_service_pb2.TokenizeRequest(), metadata=metadata)
    assert not (await spans.next()).parent_id


async def test_trace_context_travels_on_when_nothing_is_recorded() -> None:
    """Without a collector the caller's own span is the parent of calls that the handler makes."""
    service = ScriptedService(lambda: None)
    async with serving(service, NoTracer()) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        async for _ in stub.Generate(
            inference_service_pb2.GenerateRequest(),
            metadata=(("traceparent", _TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2")),
        ):
            pass
    assert (("traceparent", _TRACEPARENT), ("tracestate", "a=1,b=2")) == service.seen_metadata


@pytest.mark.parametrize(
    ("code", "is_failure"),
    [
        (grpc.StatusCode.INTERNAL, True),
        (grpc.StatusCode.UNAVAILABLE, True),
        (grpc.StatusCode.INVALID_ARGUMENT, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
    ],
)
@pytest.mark.parametrize("call", [tokenize, generate])
async def test_refused_call_has_the_status_it_was_refused_with(
    spans: EndedSpans, tracer: Tracer, call: _Call, code: grpc.StatusCode, *, is_failure: bool
) -> None:
    """Only a failure of the server's own makes the span an error."""

    def refuse() -> None:
        raise Refusal(code)

    async with serving(ScriptedService(refuse), tracer) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(inference_service_pb2_grpc.InferenceServiceStub(channel))
    assert code is caught.value.code()
    span = await spans.next()
    assert (code.name, is_failure) == (span.attributes["rpc.response.status_code"], span.has_failed)
    assert (code.name if is_failure else None) == span.attributes.get("error.type")


async def test_cancelled_stream_has_status_cancelled(spans: EndedSpans, tracer: Tracer) -> None:
    """A caller that goes away is neither success nor the server's failure."""
    async with serving(ScriptedService(), tracer) as channel:
        call = inference_service_pb2_grpc.InferenceServiceStub(channel).Generate(
            inference_service_pb2.GenerateRequest()
        )
        await call.read()
        call.cancel()
        span = await spans.next()
    assert ("CANCELLED", False) == (
        span.attributes["rpc.response.status_code"],
        span.has_failed,
    )


async def test_stream_past_its_deadline_has_status_deadline_exceeded(spans: EndedSpans, tracer: Tracer) -> None:
    """The deadline is told from a cancel, though both cancel the handler. This client leaves it to the server."""
    async with listening(ScriptedService(), tracer) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        fields = [(name, f"/{_GENERATE}" if name == ":path" else value) for name, value in REQUEST]
        head = HeadersFrame(1, Encoder().encode([*fields, ("grpc-timeout", "200m")]), flags=["END_HEADERS"])
        body = DataFrame(1, framed(b""), flags=["END_STREAM"])
        writer.write(PREFACE + b"".join(frame.serialize() for frame in (SettingsFrame(), head, body)))
        span = await spans.next()
        writer.close()
        await writer.wait_closed()
    assert ("DEADLINE_EXCEEDED", True) == (
        span.attributes["rpc.response.status_code"],
        span.has_failed,
    )


async def test_health_checks_have_no_span(spans: EndedSpans, tracer: Tracer) -> None:
    """A probe every second would drown the calls."""
    async with serving(ScriptedService(), tracer) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        await inference_service_pb2_grpc.InferenceServiceStub(channel).Tokenize(inference_service_pb2.TokenizeRequest())
    assert _TOKENIZE == (await spans.next()).name
    assert spans.is_empty


def test_no_trace_means_no_context() -> None:
    """Outside a call there is nothing to pass on."""
    assert current() is None
