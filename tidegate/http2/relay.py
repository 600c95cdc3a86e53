"""Passes the messages of an upstream call on to a client's call, frame by frame and without parsing them.

Only whole messages are passed, so that a client whose upstream is lost in the middle can be continued from another one.
Mostly a DATA frame is exactly one message, and then that costs a comparison.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grpc import StatusCode

from tidegate.http2.errors import ErrorCode
from tidegate.http2.fields import Fields
from tidegate.http2.grpc_status import Status
from tidegate.http2.messages import PREFIX_BYTES, is_one_message
from tidegate.http2.server_call import ServerCall
from tidegate.http2.streams import Stream, StreamEnd

_OK = Status(code=StatusCode.OK)
# Sees the response's head.
HeadListener = Callable[[Fields], None]
# Asked when upstream has ended with OK: whether the client has been sent all that it is to get.
EndJudge = Callable[[], bool]
# Sees whole messages with their prefixes, one or more, and returns what the client shall get for them.
MessageFilter = Callable[[bytes], bytes]


class Relay:
    """Handles an upstream stream. One per attempt; a call may see several, one after the other."""

    __slots__ = (
        *("_ended", "_ends_well", "_filter", "_http_status", "_max_message_bytes", "_on_head", "_partial", "_prepaid"),
        *("call", "stream", "taken_bytes"),
    )

    stream: Stream

    def __init__(
        self,
        call: ServerCall,
        *,
        on_messages: MessageFilter,
        on_head: HeadListener | None = None,
        ends_well: EndJudge | None = None,
        max_message_bytes: int = 2**20,
    ) -> None:
        """Set ``stream`` to the one that was opened with this handler.

        Where ``ends_well`` says so, the client's call is finished with OK in the same write as its last message.
        """
        self.call = call
        self._filter = on_messages
        self._on_head = on_head
        self._ends_well = ends_well
        self._max_message_bytes = max_message_bytes
        self.taken_bytes = 0  # of what had been held for the client
        self._partial = b""
        self._prepaid = 0  # bytes given back upstream already that are still to be sent downstream
        self._http_status = b"200"
        self._ended: asyncio.Future[Status] = call.loop.create_future()
        call.source = self

    def ended(self) -> asyncio.Future[Status]:
        """How the upstream call ended; the trailers of one that failed are the status's metadata."""
        return self._ended

    def expire(self) -> None:
        """End the upstream call for its deadline, and say so: clocks of our own do not rely on the server's."""
        if not self._ended.done():
            self.stream.reset(ErrorCode.CANCEL)
            self._end(Status(code=StatusCode.DEADLINE_EXCEEDED, message="deadline exceeded"))

    def cancel(self) -> None:
        """End the upstream call; a no-op once it has ended."""
        self.stream.reset(ErrorCode.CANCEL)
        self.stream.let_go()
        if self.call.source is self:
            self.call.source = None

    def on_forwarded(self, size: int) -> None:
        """The client has taken ``size`` bytes: upstream may send as many."""
        self.taken_bytes += size
        if self._prepaid:
            paid = min(self._prepaid, size)
            self._prepaid -= paid
            size -= paid
        if size:
            self.stream.consume(size)

    # StreamHandler.

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """Head or trailers."""
        for name, value in fields:
            if name == b":status":
                self._http_status = value
        if end_stream:
            self._end(Status.of_passed_on(fields, http_status=self._http_status))
        elif self._on_head is not None:
            self._on_head(fields)

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """Pass whole messages on."""
        if self._partial or not is_one_message(payload):
            payload = self._whole(payload)
        if payload:
            passed = self._filter(payload)
            if passed is not payload:
                self.on_forwarded(len(payload))
                self._prepaid += len(passed)
            if passed and self.call.send_frames(passed):
                if self._prepaid:
                    self.on_forwarded(len(passed))
                else:
                    self.stream.consume(len(passed))
        if end_stream:
            self._end(Status.from_trailers((), http_status=self._http_status))

    def on_sent(self, size: int) -> None:
        """Upstream has taken part of the request."""

    def on_end(self, end: StreamEnd) -> None:
        """Upstream is gone, or has reset the stream."""
        self._end(Status.from_end(end))

    def _whole(self, payload: bytes) -> bytes:
        """The whole messages of what has come so far; the rest is kept."""
        payload = self._partial + payload
        at = 0
        while len(payload) - at >= PREFIX_BYTES:
            size = int.from_bytes(payload[at : at + PREFIX_BYTES], "big")
            if size > self._max_message_bytes:  # or compressed: the flag is the highest byte
                self.stream.reset(ErrorCode.CANCEL)
                self._end(Status(code=StatusCode.INTERNAL, message="upstream message too large or compressed"))
                return b""
            if at + PREFIX_BYTES + size > len(payload):
                break
            at += PREFIX_BYTES + size
        # What is kept must not close the window that its own rest needs.
        self._prepay(len(payload) - at)
        self._partial = payload[at:]
        return payload[:at]

    def _prepay(self, kept: int) -> None:
        if kept > self._prepaid:
            self.stream.consume(kept - self._prepaid)
            self._prepaid = kept

    def _end(self, status: Status) -> None:
        if self._ended.done():
            return
        if status.is_ok and self._partial:
            status = Status(code=StatusCode.INTERNAL, message="upstream ended inside a message")
        if status.is_ok and self._ends_well is not None and self._ends_well():
            self.call.finish(_OK)
        self._ended.set_result(status)
