"""What every grpc.aio server and channel of Tidegate has in common: options, and the one place that aborts a call."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
import grpc.aio
from grpc_status import rpc_status

from tidegate.rpc.status import RpcError

# Python's gRPC core sheds bursts above a low soft limit with a bare CANCELLED before any handler runs, which clients do
# not retry. Tidegate refuses in its own admission, with a reason, so core's limit is put out of the way.
_PENDING_LIMIT = 100_000
_UNREQUESTED_LIMIT_S = 3_600

KEEPALIVE_TIME_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 10_000

_REUSE_PORT = "grpc.so_reuseport"

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.server.max_pending_requests", _PENDING_LIMIT),
    ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_LIMIT),
    # Calls that a busy event loop has not yet accepted are cancelled by core after 30 s, again without a reason.
    ("grpc.server_max_unrequested_time_in_server", _UNREQUESTED_LIMIT_S),
    ("grpc.max_concurrent_streams", 100_000),
    ("grpc.max_receive_message_length", 4 * 2**20),
    ("grpc.max_metadata_size", 16 * 2**10),
    (_REUSE_PORT, 0),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # Clients may ping as often as our own do; otherwise core answers GOAWAY too_many_pings after its 5-minute default.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
    ("grpc.keepalive_permit_without_calls", 1),
)


def server_options(reuse_port: bool) -> tuple[tuple[str, int], ...]:  # noqa: FBT001 - all that there is to choose
    """The options of a server whose port other processes may share, or not."""
    return (*(option for option in SERVER_OPTIONS if option[0] != _REUSE_PORT), (_REUSE_PORT, int(reuse_port)))


CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 * 2**20),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Retries are decided where their budget is known, not by core.
    ("grpc.enable_retries", 0),
)

_Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns every exception of a handler into a google.rpc.Status. Nothing else in a service aborts a call."""

    def __init__(self, to_rpc: Callable[[Exception], RpcError], logger: logging.Logger) -> None:
        """``to_rpc`` is the service's error table; what it makes INTERNAL is logged to ``logger`` with its trace."""
        self._to_rpc = to_rpc
        self._logger = logger

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handlers of our own services; leave grpc's (health, reflection) as they are."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/tidegate."):
            return handler
        codec = handler.request_deserializer, handler.response_serializer
        # grpc's types know the blocking form of a handler only.
        if handler.response_streaming:
            stream = self._guard_stream(cast("_Handler", handler.unary_stream))
            return grpc.unary_stream_rpc_method_handler(stream, *codec)
        unary = self._guard_unary(cast("_Handler", handler.unary_unary))
        return grpc.unary_unary_rpc_method_handler(unary, *codec)

    def _guard_unary(self, inner: _Handler) -> _Handler:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                return await inner(request, context)
            except Exception as error:  # noqa: BLE001 - the edge: everything becomes a status
                await self._abort(context, error)

        return guarded

    def _guard_stream(self, inner: _Handler) -> _Handler:
        # Writes by itself instead of yielding: when a call is cancelled while a write waits for a slow reader, a
        # generator would stay suspended until the interpreter finalizes it. This closes the handler's own, at once.
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            responses = inner(request, context)
            try:
                if inspect.isawaitable(responses):  # the handler writes by itself, too
                    await responses
                    return
                async for response in responses:
                    await context.write(response)
            except Exception as error:  # noqa: BLE001 - the edge: everything becomes a status
                await self._abort(context, error)
            finally:
                if inspect.isasyncgen(responses):
                    await responses.aclose()

        return guarded

    async def _abort(self, context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
        rpc_error = self._to_rpc(error)
        if rpc_error.code is grpc.StatusCode.INTERNAL:
            self._logger.error("call failed: %s", rpc_error.reason, exc_info=error)
        await abort(context, rpc_error)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: RpcError) -> None:
    """End the call with ``error``, its details and its retry pushback. Always raises."""
    await context.abort_with_status(_with_trailers(rpc_status.to_status(error.to_proto()), error))


def _with_trailers(status: Any, error: RpcError) -> Any:
    return status._replace(trailing_metadata=tuple(status.trailing_metadata) + error.trailers)
