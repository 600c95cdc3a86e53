"""What every grpc.aio server and channel of Tidegate has in common: options, and the one place that aborts a call."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
from grpc_status import rpc_status

from tidegate.rpc.status import RpcError

# Python's gRPC core sheds bursts above a low soft limit with a bare CANCELLED before any handler runs, which clients do
# not retry. Tidegate refuses in its own admission, with a reason, so core's limit is put out of the way.
_PENDING_LIMIT = 100_000
_UNREQUESTED_LIMIT_S = 3_600

_LEAST_PING_INTERVAL_MS = 500

Options = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """A connection that is silent for ``time_s`` is sent a PING, and given up when that has no answer in time."""

    time_s: float = 20.0
    timeout_s: float = 10.0

    @property
    def options(self) -> Options:
        """For servers and channels of grpc.aio."""
        return (
            ("grpc.keepalive_time_ms", round(1000 * self.time_s)),
            ("grpc.keepalive_timeout_ms", round(1000 * self.timeout_s)),
        )


DEFAULT_KEEPALIVE = Keepalive()

_SERVER_OPTIONS: Options = (
    ("grpc.server.max_pending_requests", _PENDING_LIMIT),
    ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_LIMIT),
    # Calls that a busy event loop has not yet accepted are cancelled by core after 30 s, again without a reason.
    ("grpc.server_max_unrequested_time_in_server", _UNREQUESTED_LIMIT_S),
    ("grpc.max_concurrent_streams", 100_000),
    ("grpc.max_receive_message_length", 4 * 2**20),
    ("grpc.max_metadata_size", 16 * 2**10),
    # Clients may ping as often as our own may; otherwise core answers GOAWAY too_many_pings after its 5-minute default.
    ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_INTERVAL_MS),
    ("grpc.keepalive_permit_without_calls", 1),
)


def server_options(keepalive: Keepalive = DEFAULT_KEEPALIVE, *, reuse_port: bool = False) -> Options:
    """The options of a server; ``reuse_port``: other processes may share its port."""
    return (*_SERVER_OPTIONS, *keepalive.options, ("grpc.so_reuseport", int(reuse_port)))


_CHANNEL_OPTIONS: Options = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 * 2**20),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Retries are decided where their budget is known, not by core.
    ("grpc.enable_retries", 0),
)


def channel_options(keepalive: Keepalive = DEFAULT_KEEPALIVE) -> Options:
    """The options of a channel."""
    return (*keepalive.options, *_CHANNEL_OPTIONS)


CHANNEL_OPTIONS = channel_options()

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
