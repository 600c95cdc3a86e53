"""One call on the server's side, as its handler sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from grpc import StatusCode

from tidegate.http2.call_io import Inbox, Outbox
from tidegate.http2.fields import Fields, encode
from tidegate.http2.grpc_status import CallError, Status
from tidegate.http2.linger import Lingering
from tidegate.http2.messages import CompressedMessageError, MessageTooLargeError
from tidegate.http2.metadata import CONTENT_TYPE, Metadata, encode_metadata
from tidegate.http2.request_head import RequestHead
from tidegate.http2.streams import Stream, StreamEnd

RESPONSE_HEAD = ((b":status", b"200"), (b"content-type", CONTENT_TYPE))
_RESPONSE_BLOCK = encode(RESPONSE_HEAD)
_OK_BLOCK = encode(Status(code=StatusCode.OK).fields())


class Source(Protocol):
    """Whoever produces frames for a call, and has to be held back by a client that lags."""

    def on_forwarded(self, size: int) -> None:
        """``size`` bytes have left for the client."""


class ServerCall:
    """A call in progress. After it has ended, by whomever, everything here is a no-op and the handler is cancelled."""

    __slots__ = (
        "_head",
        "_head_sent",
        "_inbox",
        "_on_end",
        "_outbox",
        "deadline_s",
        "is_ended",
        "loop",
        "peer",
        "source",
        "stream",
    )

    def __init__(  # noqa: PLR0913 - the call, and what surrounds it
        self,
        stream: Stream,
        head: RequestHead,
        *,
        peer: str,
        max_message_bytes: int,
        on_end: Callable[[ServerCall], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """``on_end`` is told when the call ends other than by ``finish``; ``loop`` is the one that runs."""
        self.stream = stream
        self.loop = loop  # kept, since Python 3.11 asks the kernel who we are each time it is asked for the loop
        self._head: RequestHead | None = head
        self.peer = peer
        # By the event loop's clock.
        timeout_s = head.timeout_s
        self.deadline_s = None if timeout_s is None else loop.time() + timeout_s
        self.is_ended = False
        self.source: Source | None = None  # whence ``send_frames`` comes
        self._head_sent = False
        self._inbox = Inbox(stream, max_message_bytes)
        self._outbox = Outbox(stream)
        self._on_end = on_end

    # For the handler.

    @property
    def metadata(self) -> Metadata:
        """The caller's metadata, until ``forget_metadata``."""
        if self._head is None:
            raise RuntimeError("the call's metadata has been forgotten")
        return self._head.metadata

    def forget_metadata(self) -> None:
        """The handler knows all that it needs of it, and need not hold it for as long as the stream lasts."""
        self._head = None

    @property
    def held_bytes(self) -> int:
        """Bytes of messages that the client has not taken yet."""
        return self._outbox.held_bytes

    async def receive(self) -> bytes | None:
        """The client's next message, or None once it has half-closed."""
        return await self._inbox.receive()

    def take_only(self) -> bytes | None:
        """What ``receive_only`` would return, where that has come already; None where it is to be waited for."""
        return self._inbox.take_only()

    async def receive_only(self) -> bytes:
        """The one message of a method that takes exactly one. Raises ``CallError`` when there is none, or more."""
        message = await self._inbox.receive()
        if message is None or await self._inbox.receive() is not None:
            raise CallError(Status(code=StatusCode.UNIMPLEMENTED, message="the method takes exactly one message"))
        return message

    def send_initial_metadata(self, metadata: Metadata = ()) -> None:
        """Send the response's head, once; the first message sends an empty one."""
        if not self._head_sent:
            self._head_sent = True
            block = encode((*RESPONSE_HEAD, *encode_metadata(metadata))) if metadata else _RESPONSE_BLOCK
            self.stream.send_headers(block)

    def send(self, message: bytes) -> None:
        """Send a message, or hold it for a client that lags: see ``held_bytes`` and ``drained``."""
        self.send_initial_metadata()
        self._outbox.send(message)

    def send_frames(self, frames: bytes) -> bool:
        """Send messages that have their prefixes. False: they are held, and ``source`` will be told when they leave."""
        if not self._head_sent:
            self.send_initial_metadata()
        return self.stream.send_data(frames)

    async def drained(self) -> None:
        """Wait until the client has taken all that is held for it."""
        await self._outbox.drained()

    def finish(self, status: Status) -> None:
        """End the call: trailers, or trailers-only when nothing was sent before."""
        if self.is_ended:
            return
        self.is_ended = True
        if not self._head_sent:
            block = encode((*RESPONSE_HEAD, *status.fields()))
        elif status.is_bare_ok:
            block = _OK_BLOCK
        else:
            block = encode(status.fields())
        self._head_sent = True
        self.stream.send_headers(block, end_stream=True)
        self._let_go()

    # StreamHandler.

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """The client's trailers, which gRPC does not use."""
        self._half_close()

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """Part of the request."""
        if self.is_ended:
            self.stream.consume(len(payload))
            return
        try:
            self._inbox.feed(payload)
        except MessageTooLargeError as error:
            self._refuse(StatusCode.RESOURCE_EXHAUSTED, f"request message of {error} bytes is too large")
        except CompressedMessageError:
            self._refuse(StatusCode.INTERNAL, "compressed message without grpc-encoding")
        if end_stream:
            self._half_close()

    def on_sent(self, size: int) -> None:
        """The client has taken something."""
        self._outbox.on_sent()
        if self.source is not None:
            self.source.on_forwarded(size)
        if self.is_ended:
            self._let_go()

    def on_end(self, end: StreamEnd) -> None:
        """The client has cancelled, or is gone."""
        self._outbox.release()
        if not self.is_ended:
            self.is_ended = True
            self._on_end(self)
        self.stream.let_go()

    def expire(self) -> None:
        """The deadline has passed."""
        self._refuse(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")

    def _let_go(self) -> None:
        """Once the answer is on its way, the request matters no more."""
        if self.stream.can_receive and not self.stream.backlog_bytes:
            Lingering(self.stream)
        self.stream.let_go()

    def _half_close(self) -> None:
        if self._inbox.has_partial:
            self._refuse(StatusCode.INTERNAL, "request ended inside a message")
        self._inbox.end()

    def _refuse(self, code: StatusCode, message: str) -> None:
        if not self.is_ended:
            self.finish(Status(code=code, message=message))
            self._outbox.release()
            self._on_end(self)


def time_left_s(call: ServerCall) -> float | None:
    """Seconds to the call's deadline, below zero when it has passed; None without one."""
    return None if call.deadline_s is None else call.deadline_s - call.loop.time()
