"""One call on the client's side."""

from __future__ import annotations

import asyncio

from grpc import StatusCode

from tidegate.http2.call_io import Inbox, Outbox
from tidegate.http2.errors import ErrorCode
from tidegate.http2.fields import Fields
from tidegate.http2.grpc_status import CallError, Status
from tidegate.http2.messages import CompressedMessageError, MessageTooLargeError
from tidegate.http2.metadata import Metadata, decode_metadata
from tidegate.http2.streams import Stream, StreamEnd


class ClientCall:
    """A call in progress. Cancel it, or receive to its end: a forgotten call goes on at the server."""

    __slots__ = (
        "_expiry",
        "_http_status",
        "_inbox",
        "_max_message_bytes",
        "_outbox",
        "initial_metadata",
        "status",
        "stream",
    )

    stream: Stream
    _inbox: Inbox
    _outbox: Outbox

    def __init__(self, *, max_message_bytes: int) -> None:
        """``start`` follows, with the stream whose handler this is."""
        self.initial_metadata: Metadata | None = None
        self.status: Status | None = None  # once the call has ended
        self._http_status = b"200"
        self._max_message_bytes = max_message_bytes
        self._expiry: asyncio.TimerHandle | None = None

    def start(self, stream: Stream, *, timeout_s: float | None) -> None:
        """Bind the call to its stream."""
        self.stream = stream
        self._inbox = Inbox(stream, self._max_message_bytes)
        self._outbox = Outbox(stream)
        if timeout_s is not None:
            self._expiry = asyncio.get_running_loop().call_later(max(0.0, timeout_s), self._expire)

    # For the caller.

    def send(self, message: bytes, *, half_close: bool = False) -> None:
        """Send a message; await ``drained`` before many more."""
        self._outbox.send(message)
        if half_close:
            self.half_close()

    def half_close(self) -> None:
        """Say that no more messages follow."""
        self.stream.send_data(b"", end_stream=True)

    async def drained(self) -> None:
        """Wait until the server has taken all that is held for it."""
        await self._outbox.drained()

    async def receive(self) -> bytes | None:
        """The next message; None once the call has ended with OK. Raises ``CallError`` when with another status."""
        return await self._inbox.receive()

    def cancel(self) -> None:
        """End the call; a no-op once it has ended."""
        self._abort(Status(code=StatusCode.CANCELLED, message="cancelled by the client"))

    # StreamHandler.

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """The response's head, or its trailers."""
        if self.initial_metadata is None:
            self._http_status = dict(fields).get(b":status", b"")
            self.initial_metadata = () if end_stream else decode_metadata(fields)
            if self._http_status != b"200" and not end_stream:
                self._abort(Status.from_trailers(fields, http_status=self._http_status))
                return
        if end_stream:
            self._end(Status.from_trailers(fields, http_status=self._http_status))

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """Part of the response."""
        try:
            self._inbox.feed(payload)
        except MessageTooLargeError as error:
            self._abort(Status(code=StatusCode.RESOURCE_EXHAUSTED, message=f"message of {error} bytes is too large"))
        except CompressedMessageError:
            self._abort(Status(code=StatusCode.INTERNAL, message="compressed message without grpc-encoding"))
        if end_stream:
            self._abort(Status.from_trailers((), http_status=self._http_status))

    def on_sent(self, size: int) -> None:
        """The server has taken something."""
        self._outbox.on_sent()

    def on_end(self, end: StreamEnd) -> None:
        """The call ended early."""
        self._end(Status.from_end(end))

    def _expire(self) -> None:
        self._abort(Status(code=StatusCode.DEADLINE_EXCEEDED, message="deadline exceeded"))

    def _abort(self, status: Status) -> None:
        if self.status is None:
            self.stream.reset(ErrorCode.CANCEL)
            self._end(status)

    def _end(self, status: Status) -> None:
        if self.status is not None:
            return
        if status.is_ok and self._inbox.has_partial:
            status = Status(code=StatusCode.INTERNAL, message="response ended inside a message")
        self.status = status
        if self._expiry is not None:
            self._expiry.cancel()
        self._inbox.end(None if status.is_ok else CallError(status))
        self._outbox.release()
