"""Passes whole streams from a client to another server untouched: methods that are served elsewhere.

Each of the two streams has a handler here that sends what it receives on the other one. What the other cannot take yet
is not given back to the sender's window, so that at most one window per stream and direction is held.
"""

from __future__ import annotations

import asyncio

from grpc import StatusCode

from tidegate.http2.channel import Channel
from tidegate.http2.errors import ErrorCode
from tidegate.http2.fields import EncodedFields, Fields, encode
from tidegate.http2.grpc_status import Status
from tidegate.http2.linger import Lingering
from tidegate.http2.request_head import RequestHead
from tidegate.http2.server_call import RESPONSE_HEAD
from tidegate.http2.streams import EndCause, Stream, StreamEnd


class Splicer:
    """The fallback of a server: passes streams on to ``channel``."""

    def __init__(self, channel: Channel) -> None:
        """``channel`` to the server that knows the method, or that it is unknown."""
        self._channel = channel
        self._connecting: set[asyncio.Task[None]] = set()

    def __call__(self, stream: Stream, head: RequestHead, end_stream: bool) -> Downstream:  # noqa: FBT001 - Fallback
        """Take over ``stream``."""
        downstream = Downstream(stream)
        if self._channel.can_open:
            downstream.connect(self._channel, head.fields, end_stream=end_stream)
        else:
            task = asyncio.get_running_loop().create_task(self._connect(downstream, head.fields, end_stream=end_stream))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        return downstream

    async def _connect(self, downstream: Downstream, fields: Fields, *, end_stream: bool) -> None:
        try:
            await self._channel.connect()
        except OSError as error:
            downstream.fail(Status(code=StatusCode.UNAVAILABLE, message=f"cannot connect: {error}"))
        else:
            downstream.connect(self._channel, fields, end_stream=end_stream)


class Downstream:
    """Handles the client's stream."""

    __slots__ = ("_early", "_head_sent", "_stream", "_upstream")

    def __init__(self, stream: Stream) -> None:
        """``connect`` follows; what comes before it waits."""
        self._stream = stream
        self._upstream: Stream | None = None
        self._early: list[tuple[bytes, bool]] = []
        self._head_sent = False

    def connect(self, channel: Channel, fields: Fields, *, end_stream: bool) -> None:
        """Open the other stream."""
        if self._stream.is_closed:
            return
        if not channel.can_open:
            self.fail(Status(code=StatusCode.UNAVAILABLE, message="no connection"))
            return
        upstream = _Upstream(self, self._stream)
        self._upstream = channel.open(EncodedFields.of(fields), upstream, end_stream=end_stream)
        early, self._early = self._early, []
        for payload, is_last in early:
            self.on_data(payload, end_stream=is_last)

    def fail(self, status: Status) -> None:
        """End the client's call."""
        fields = status.fields() if self._head_sent else [*RESPONSE_HEAD, *status.fields()]
        self._stream.send_headers(encode(fields), end_stream=True)
        if not self._stream.backlog_bytes:
            Lingering(self._stream)

    def send_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """Pass the response's head or trailers on."""
        self._head_sent = True
        self._stream.send_headers(encode(fields), end_stream=end_stream)

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """The client's trailers end its half."""
        self.on_data(b"", end_stream=end_stream)

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """Pass the request on."""
        if self._upstream is None:
            self._early.append((payload, end_stream))
        elif self._upstream.send_data(payload, end_stream=end_stream):
            self._stream.consume(len(payload))

    def on_sent(self, size: int) -> None:
        """The client has taken part of the response."""
        if self._upstream is not None:
            self._upstream.consume(size)

    def on_end(self, end: StreamEnd) -> None:
        """The client has cancelled, or is gone."""
        if self._upstream is not None:
            self._upstream.reset(end.code if end.cause is EndCause.RESET_BY_PEER else ErrorCode.CANCEL)


class _Upstream:
    """Handles the stream to the other server."""

    __slots__ = ("_downstream", "_stream")

    def __init__(self, downstream: Downstream, stream: Stream) -> None:
        self._downstream = downstream
        self._stream = stream  # the client's

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """Head or trailers."""
        self._downstream.send_headers(fields, end_stream=end_stream)

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """Pass the response on."""
        if self._stream.send_data(payload, end_stream=end_stream):
            self._downstream.on_sent(len(payload))

    def on_sent(self, size: int) -> None:
        """The other server has taken part of the request."""
        self._stream.consume(size)

    def on_end(self, end: StreamEnd) -> None:
        """The other server has reset the stream, or is gone."""
        if not self._stream.can_send:  # it had finished, and does not want the rest of the request
            if not self._stream.backlog_bytes:
                Lingering(self._stream)
        elif end.cause is EndCause.RESET_BY_PEER:
            self._stream.reset(end.code)
        else:
            self._downstream.fail(Status.from_end(end))
