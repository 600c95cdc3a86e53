"""A gRPC server on the HTTP/2 edge: handlers for the methods that matter, and a fallback for all others."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from grpc import StatusCode

from tidegate.http2.alarms import Alarms
from tidegate.http2.endpoint import Endpoint
from tidegate.http2.errors import ErrorCode
from tidegate.http2.fields import Fields, encode
from tidegate.http2.grpc_status import CallError, Status
from tidegate.http2.limits import Abuse
from tidegate.http2.linger import Lingering, Unread
from tidegate.http2.request_head import HeadRefusalError, HttpRefusalError, RequestHead, parse_head
from tidegate.http2.server_call import RESPONSE_HEAD, ServerCall
from tidegate.http2.streams import Stream, StreamHandler
from tidegate.http2.transport import Flusher, Transport

_LOGGER = logging.getLogger(__name__)
_TICK_S = 1.0
_BACKLOG = 4096

# Serves a call and returns how it ends. Cancelled when the client cancels, is lost, or its deadline passes.
Handler = Callable[[ServerCall], Awaitable[Status]]
# Takes over a stream whose method has no handler.
Fallback = Callable[[Stream, RequestHead, bool], StreamHandler]


class GrpcServer:
    """Serves gRPC on one or more sockets of one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        handlers: Mapping[str, Handler],
        *,
        flusher: Flusher,
        fallback: Fallback | None = None,
        to_status: Callable[[Exception], Status] | None = None,
    ) -> None:
        """``handlers`` by full method name, such as "/package.Service/Method"; ``to_status`` maps their exceptions.

        Make it inside a running event loop.
        """
        self.transports: set[Transport] = set()
        self._endpoint = endpoint
        self._handlers = handlers
        self._flusher = flusher
        self._fallback = fallback
        self._to_status = to_status or _to_status
        self._tasks: dict[ServerCall, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._listeners: list[asyncio.Server] = []
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._ticker: asyncio.TimerHandle | None = None
        self._alarms = Alarms()
        self._end_of = self._on_end  # one bound method for all calls
        self._heads: dict[Transport, RequestHead] = {}  # of each client's latest request

    async def listen(self, host: str, port: int, *, tls: ssl.SSLContext | None = None, reuse_port: bool = False) -> int:
        """Serve on a TCP port; 0 chooses one. Returns the port."""
        listener = await self._loop.create_server(
            self._protocol, host, port, ssl=tls, reuse_port=reuse_port or None, backlog=_BACKLOG
        )
        self._started(listener)
        # Typed as a tuple, which compiled code insists on, while uvloop's is a list.
        (socket, *_) = cast("Any", listener).sockets
        return int(socket.getsockname()[1])

    async def listen_unix(self, path: str) -> None:
        """Serve on a Unix socket."""
        self._started(await self._loop.create_unix_server(self._protocol, path, backlog=_BACKLOG))

    def send_away(self) -> None:
        """Take no more connections, and tell clients to open new calls elsewhere. Running calls go on."""
        for listener in self._listeners:
            listener.close()
        for transport in list(self.transports):
            transport.connection.session.drain()
            transport.flush()

    def unread(self) -> list[int]:
        """Bytes held for peers, for each stream that has any. From any thread."""
        streams = (
            stream
            for transport in tuple(self.transports)
            for stream in tuple(transport.connection.streams.open.values())
        )
        return [held for stream in streams if (held := stream.backlog_bytes)]

    async def drain(self, grace_s: float) -> None:
        """Stop gracefully: refuse new calls, let running ones finish for ``grace_s``, then end them. Closes all."""
        self.send_away()
        try:
            async with asyncio.timeout(grace_s):
                await self._all_closed.wait()
        except TimeoutError:
            await self._end_all()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    async def _end_all(self) -> None:
        tasks = list(self._tasks.values())
        for call in list(self._tasks):
            call.finish(Status(code=StatusCode.UNAVAILABLE, message="the server is shutting down"))
            self._on_end(call)
        for transport in list(self.transports):
            transport.connection.session.close(ErrorCode.NO_ERROR, "shutting down")
            transport.flush()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._all_closed.wait()

    # Owner.

    def on_made(self, transport: Transport) -> None:
        """A client has connected."""
        self.transports.add(transport)
        self._all_closed.clear()

    def on_lost(self, transport: Transport) -> None:
        """A client is gone."""
        self.transports.discard(transport)
        self._heads.pop(transport, None)
        if not self.transports:
            self._all_closed.set()

    def on_request(self, transport: Transport, stream: Stream, fields: Fields, *, end_stream: bool) -> StreamHandler:
        """Route a request to its handler, to the fallback, or to its refusal."""
        try:
            head = self._head(transport, fields)
        except HttpRefusalError as refusal:
            stream.send_headers(encode(((b":status", refusal.http_status),)), end_stream=True)
            return Lingering(stream)
        except HeadRefusalError as head_refusal:  # not the name above: to mypyc a name has one type
            if head_refusal.status.code is StatusCode.RESOURCE_EXHAUSTED:
                transport.connection.session.spend(Abuse.OVERSIZE_HEADER_LIST)
            answer = (*RESPONSE_HEAD, *head_refusal.also, *head_refusal.status.fields())
            stream.send_headers(encode(answer), end_stream=True)
            return Lingering(stream)
        handler = self._handlers.get(head.method)
        if handler is None:
            if self._fallback is not None:
                return self._fallback(stream, head, end_stream)
            status = Status(code=StatusCode.UNIMPLEMENTED, message=f"unknown method {head.method}")
            stream.send_headers(encode((*RESPONSE_HEAD, *status.fields())), end_stream=True)
            return Lingering(stream)
        return self._serve(transport, stream, head, handler)

    def _head(self, transport: Transport, fields: Fields) -> RequestHead:
        """Of a client that makes the same call again, the same ``fields`` come again."""
        head = self._heads.get(transport)
        if head is None or head.fields is not fields:
            head = parse_head(fields, max_list_bytes=self._endpoint.limits.max_header_list_bytes)
            self._heads[transport] = head
        return head

    def _serve(self, transport: Transport, stream: Stream, head: RequestHead, handler: Handler) -> ServerCall:
        call = ServerCall(
            stream,
            head,
            peer=transport.peer,
            max_message_bytes=self._endpoint.limits.max_message_bytes,
            on_end=self._end_of,
            loop=self._loop,
        )
        if not stream.can_receive:
            call.on_headers((), end_stream=True)
        self._tasks[call] = self._loop.create_task(self._run(call, handler), name=head.method)
        return call

    async def _run(self, call: ServerCall, handler: Handler) -> None:
        expiry = None
        if call.deadline_s is not None:
            expiry = self._alarms.call_at(call.deadline_s, call.expire)
        try:
            call.finish(await handler(call))
        except asyncio.CancelledError:
            if not call.is_ended:  # by someone else than the client: the handler is being torn down
                call.finish(Status(code=StatusCode.CANCELLED, message="cancelled by the server"))
            raise
        except Exception as error:  # noqa: BLE001 - the edge: everything becomes a status
            call.finish(self._to_status(error))
        finally:
            if expiry is not None:
                expiry.cancel()
            self._tasks.pop(call, None)
            unread_timeout_s = self._endpoint.limits.unread_timeout_s
            if call.stream.backlog_bytes and unread_timeout_s is not None:
                Unread(call.stream, unread_timeout_s)

    def _on_end(self, call: ServerCall) -> None:
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()
            # One that has not begun yet never comes to its own ``finally``.
            task.add_done_callback(lambda _: self._tasks.pop(call, None))

    def _protocol(self) -> asyncio.Protocol:
        return Transport(self._endpoint, self._flusher, self).as_protocol()

    def _started(self, listener: asyncio.Server) -> None:
        self._listeners.append(listener)
        if self._ticker is None:
            self._tick()

    def _tick(self) -> None:
        for transport in list(self.transports):
            transport.tick()
        self._ticker = self._loop.call_later(_TICK_S, self._tick)


def _to_status(error: Exception) -> Status:
    if isinstance(error, CallError):
        return error.status
    _LOGGER.error("a handler failed", exc_info=error)
    return Status(code=StatusCode.INTERNAL, message="internal error; see the server's log")
