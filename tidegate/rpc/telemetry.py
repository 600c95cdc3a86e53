"""What records the calls that grpc.aio serves.

The interceptor is our own: the contributed one reports cancelled streams as OK and writes names that have been
replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
import grpc.aio

from tidegate.rpc.served_calls import ServedCalls

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# A client whose deadline passes cancels, and its cancel may be here before our own clock, late by the network's delay,
# has run down.
_DEADLINE_SLACK_S = 0.05

_ServicerContext = grpc.aio.ServicerContext[Any, Any]
_Handler = Callable[[Any, _ServicerContext], Awaitable[Any]]


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
