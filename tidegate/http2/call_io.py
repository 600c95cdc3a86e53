"""The two halves of a call that server and client share: messages that have come, and messages on their way."""

from __future__ import annotations

import asyncio
from collections import deque

from tidegate.http2.messages import MessageReader, framed
from tidegate.http2.streams import Stream


class Inbox:
    """Messages of one stream, waiting for one reader.

    Bytes are given back to the peer's window when they belong to an incomplete message (whose size is bounded) or when
    their message has been taken, so that a slow reader holds back its peer.
    """

    __slots__ = ("_ended", "_failure", "_messages", "_reader", "_stream", "_unread_bytes", "_waiter")

    def __init__(self, stream: Stream, max_message_bytes: int) -> None:
        """No message may be longer than ``max_message_bytes``."""
        self._stream = stream
        self._reader = MessageReader(max_message_bytes)
        self._messages: deque[bytes] | None = None
        self._unread_bytes = 0
        self._ended = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, payload: bytes) -> None:
        """Take received bytes. Raises what ``MessageReader.feed`` raises."""
        messages = self._reader.feed(payload)
        if messages:
            if self._messages is None:
                self._messages = deque()
            self._messages.extend(messages)
            self._wake()
        if self._messages:
            self._unread_bytes += len(payload)
        else:
            self._stream.consume(len(payload))

    @property
    def has_partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._reader.has_partial

    def end(self, failure: Exception | None = None) -> None:
        """Nothing more will come; ``failure`` is raised once all messages have been taken."""
        if not self._ended:
            self._ended = True
            self._failure = failure
            self._wake()

    def take_only(self) -> bytes | None:
        """The message, where exactly one has come and none can follow; None otherwise, and then nothing was taken."""
        messages = self._messages
        if not self._ended or self._failure is not None or messages is None or len(messages) != 1:
            return None
        return self._take(messages)

    async def receive(self) -> bytes | None:
        """The next message, or None after the last."""
        while not self._messages:
            if self._ended:
                if self._failure is not None:
                    raise self._failure
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take(self._messages)

    def _take(self, messages: deque[bytes]) -> bytes:
        message = messages.popleft()
        if not messages:
            self._messages = None  # an empty one has 600 bytes, and most streams never get another message
            self._stream.consume(self._unread_bytes)
            self._unread_bytes = 0
        return message

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Outbox:
    """The sending side of one stream, with a way to wait for a slow peer."""

    __slots__ = ("_low_bytes", "_stream", "_waiter")

    def __init__(self, stream: Stream, *, low_bytes: int = 0) -> None:
        """``drained`` waits until at most ``low_bytes`` are held for the peer."""
        self._stream = stream
        self._low_bytes = low_bytes
        self._waiter: asyncio.Future[None] | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for the peer's windows or for the socket."""
        return self._stream.backlog_bytes

    def send(self, message: bytes) -> None:
        """Send a message, or hold it; ask ``held_bytes`` or await ``drained`` before sending more."""
        self._stream.send_data(framed(message))

    def on_sent(self) -> None:
        """Some of what was held has left."""
        if self._waiter is not None and not self._waiter.done() and self.held_bytes <= self._low_bytes:
            self._waiter.set_result(None)

    def release(self) -> None:
        """The stream is over: nobody needs to wait."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def drained(self) -> None:
        """Wait until the peer has taken what is held."""
        while self.held_bytes > self._low_bytes:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
