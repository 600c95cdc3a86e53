"""A worker's call on the HTTP/2 edge that keeps what comes, until it is known whether the client gets it."""

from __future__ import annotations

from gateway.hedging import ScoutListener
from gateway.workers.seat import Lease
from tidegate.http2.errors import ErrorCode
from tidegate.http2.fields import Fields
from tidegate.http2.grpc_status import Status
from tidegate.http2.relay import HeadListener, Relay
from tidegate.http2.streams import Stream, StreamEnd
from tidegate.rpc.http2_status import from_status


class Http2Scout:
    """Handles an upstream stream. What is kept fills the stream's window, and is no more than that."""

    __slots__ = ("_data", "_end", "_listener", "_on_head", "_trailers", "lease", "stream")

    stream: Stream

    def __init__(self, lease: Lease, listener: ScoutListener, *, on_head: HeadListener) -> None:
        """Set ``stream`` to the one that was opened with this handler."""
        self.lease = lease
        self._listener = listener
        self._on_head = on_head
        self._data = b""
        self._trailers: Fields | None = None
        self._end: StreamEnd | None = None

    def cancel(self) -> None:
        """End the call; a no-op once it has ended."""
        self.stream.reset(ErrorCode.CANCEL)
        self.stream.let_go()

    def hand_over(self, relay: Relay) -> None:
        """Let ``relay`` handle the stream, and have it all that has come behind the head."""
        relay.stream = self.stream
        self.stream.handler = relay
        relay.on_data(self._data, end_stream=False)
        if self._trailers is not None:
            relay.on_headers(self._trailers, end_stream=True)
        if self._end is not None:
            relay.on_end(self._end)

    # StreamHandler.

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """Head or trailers."""
        if not end_stream:
            self._on_head(fields)
            return
        self._trailers = fields
        if not self._data:
            self._listener.on_failure(from_status(Status.from_trailers(fields, http_status=b"200")))

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """Part of the answer."""
        is_first = not self._data
        self._data += payload
        if end_stream:
            self._trailers = ()
        if is_first and payload:
            self._listener.on_answer()

    def on_sent(self, size: int) -> None:
        """Upstream has taken part of the request."""

    def on_end(self, end: StreamEnd) -> None:
        """Upstream is gone, or has reset the stream."""
        self._end = end
        if not self._data:
            self._listener.on_failure(from_status(Status.from_end(end)))
