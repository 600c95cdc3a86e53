"""What is recorded of a call served, its span and its duration, and the trace context of calls going out.

The interceptor is our own: the contributed one reports cancelled streams as OK and writes names that have been
replaced. Names are those of OpenTelemetry's RPC conventions (release candidate). A span never holds content of a
request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import grpc
import grpc.aio

from tidegate.telemetry.catalogue import RPC_DURATION
from tidegate.telemetry.conventions import ERROR_TYPE, RPC_METHOD, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME
from tidegate.telemetry.metrics import Histogram
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.spans import Span
from tidegate.telemetry.trace_context import enter

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# What the conventions count as a server's own failure; the rest is the caller's affair and leaves the status unset.
_SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNKNOWN,
    }
)
# A client whose deadline passes cancels, and its cancel may be here before our own clock, late by the network's delay,
# has run down.
_DEADLINE_SLACK_S = 0.05

_ServicerContext = grpc.aio.ServicerContext[Any, Any]
_Handler = Callable[[Any, _ServicerContext], Awaitable[Any]]


class ServedCalls:
    """Records the calls that a server serves."""

    def __init__(self, telemetry: Telemetry, clock: Callable[[], float] = time.monotonic) -> None:
        self.tracer = telemetry.tracer
        self.clock = clock
        self._durations = telemetry.metrics.histogram(RPC_DURATION)
        self._ended: dict[tuple[str, grpc.StatusCode], Ended] = {}  # by method, of those that are served here

    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> ServedCall:
        """A call has come. ``method`` without its leading slash; ``metadata`` is the call's."""
        return ServedCall(self, method, metadata)

    def ended(self, method: str, code: grpc.StatusCode) -> Ended:
        """What is recorded of a call that has ended with ``code``."""
        ended = self._ended.get((method, code))
        if ended is None:
            attributes = {RPC_RESPONSE_STATUS_CODE: code.name}
            if code in _SERVER_FAULTS:
                attributes[ERROR_TYPE] = code.name
            durations = self._durations.under({RPC_SYSTEM_NAME: "grpc", RPC_METHOD: method} | attributes)
            ended = self._ended[method, code] = Ended(durations, attributes)
        return ended


class Ended(NamedTuple):
    """Where the duration of a call goes, and what its span is told of its end."""

    durations: Histogram
    attributes: Mapping[str, str]


class ServedCall:
    """One call; its span is below its caller's, and current in the task that makes it. End it once."""

    __slots__ = ("_began_at", "_calls", "_method", "_span")

    def __init__(self, calls: ServedCalls, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Use ``ServedCalls.begin``."""
        self._calls = calls
        self._method = method
        self._began_at = calls.clock()
        context = calls.tracer.begin(method, metadata, {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: method})
        self._span = context if isinstance(context, Span) else None
        if context is not None:
            enter(context)  # never left: each call runs in a task of its own

    def end(self, code: grpc.StatusCode) -> None:
        """The call has ended with ``code``."""
        ended = self._calls.ended(self._method, code)
        ended.durations.record(self._calls.clock() - self._began_at)
        if self._span is not None:
            if code in _SERVER_FAULTS:
                self._span.fail()
            self._span.set(ended.attributes)
            self._span.end()


class TraceInterceptor(grpc.aio.ServerInterceptor):
    """Gives every call of our own services a SERVER span, which is current in its handler.

    Stands before the ErrorInterceptor, so that it sees the status which that one makes.
    """

    def __init__(self, calls: ServedCalls) -> None:
        self._calls = calls

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handlers of our own services; health checks and reflection are not worth a span."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix("/")
        if handler is None or not method.startswith("tidegate."):
            return handler
        codec = handler.request_deserializer, handler.response_serializer
        # grpc's types know the blocking form of a handler only.
        if handler.response_streaming:
            traced = self._trace(method, cast("_Handler", handler.unary_stream))
            return grpc.unary_stream_rpc_method_handler(cast("Any", traced), *codec)
        traced = self._trace(method, cast("_Handler", handler.unary_unary))
        return grpc.unary_unary_rpc_method_handler(traced, *codec)

    def _trace(self, method: str, inner: _Handler) -> _Handler:
        # Streams too are coroutines here: the ErrorInterceptor writes their responses.
        async def traced(request: Any, context: _ServicerContext) -> Any:
            with self._span(method, context):
                return await inner(request, context)

        return traced

    @contextmanager
    def _span(self, method: str, context: _ServicerContext) -> Iterator[None]:
        call = self._calls.begin(method, context.invocation_metadata() or ())
        code = grpc.StatusCode.UNKNOWN
        try:
            yield
            code = _sent_code(context)
        except asyncio.CancelledError:
            remaining_s: Any = context.time_remaining()  # None without a deadline, whatever grpc's types say
            code = cancelled_code(remaining_s)
            raise
        except Exception:
            # grpc answers UNKNOWN to what nobody turned into a status.
            sent = _sent_code(context)
            code = grpc.StatusCode.UNKNOWN if sent is grpc.StatusCode.OK else sent
            raise
        finally:
            call.end(code)


def _sent_code(context: _ServicerContext) -> grpc.StatusCode:
    code: Any = context.code()  # a number or a StatusCode, by the way in which it was set
    return code if isinstance(code, grpc.StatusCode) else _CODES[code or 0]


def cancelled_code(remaining_s: float | None) -> grpc.StatusCode:
    """What a cancelled call's client has seen; ``remaining_s`` is the time to its deadline, None without one."""
    has_expired = remaining_s is not None and remaining_s < _DEADLINE_SLACK_S
    return grpc.StatusCode.DEADLINE_EXCEEDED if has_expired else grpc.StatusCode.CANCELLED
