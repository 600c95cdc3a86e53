"""The end of a stream whose answer is complete, while its request is not, or while the client has not read it.

A server may then ask the client to stop by RST_STREAM with NO_ERROR (RFC 9113, section 8.1). Sent at once, it can
overtake the answer inside some clients, and a refusal with a reason becomes an internal error. Clients that know gRPC
stop by themselves, so the request is given a while, and what comes of it is thrown away within the stream's window.
"""

from __future__ import annotations

import asyncio

from tidegate.http2.errors import ErrorCode
from tidegate.http2.fields import Fields
from tidegate.http2.streams import Stream, StreamEnd

_LINGER_S = 1.0


class Lingering:
    """Handles a stream that has been answered."""

    __slots__ = ("_expiry", "_stream")

    def __init__(self, stream: Stream) -> None:
        """Becomes the stream's handler, unless the request is complete."""
        self._stream = stream
        self._expiry: asyncio.TimerHandle | None = None
        if stream.can_receive:
            stream.handler = self
            self._expiry = asyncio.get_running_loop().call_later(_LINGER_S, stream.reset, ErrorCode.NO_ERROR)

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """The request is complete."""
        self._release()

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """More of the request, which nobody reads."""
        if end_stream:
            self._release()

    def on_sent(self, size: int) -> None:
        """Nothing waits to be sent."""

    def on_end(self, end: StreamEnd) -> None:
        """The client has stopped."""
        self._release()

    def _release(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None


class Unread:
    """Handles a stream whose answer is complete and held for a client that lags.

    The handler that watched over the client is done, and so is the deadline: a client that takes nothing more would
    have its answer held for as long as its connection stands.
    """

    __slots__ = ("_expiry", "_held_bytes", "_stream", "_timeout_s")

    def __init__(self, stream: Stream, timeout_s: float) -> None:
        """Becomes the stream's handler, and resets it when nothing of its backlog was taken for ``timeout_s``."""
        self._stream = stream
        self._timeout_s = timeout_s
        stream.handler = self
        self._look_later()

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """The request is complete."""

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """More of the request, which nobody reads."""

    def on_sent(self, size: int) -> None:
        """The client has taken something."""
        if not self._stream.backlog_bytes:
            self._expiry.cancel()
            Lingering(self._stream)
            self._stream.let_go()

    def on_end(self, end: StreamEnd) -> None:
        """The client has stopped."""
        self._expiry.cancel()
        self._stream.let_go()

    def _look_later(self) -> None:
        self._held_bytes = self._stream.backlog_bytes
        self._expiry = asyncio.get_running_loop().call_later(self._timeout_s, self._look)

    def _look(self) -> None:
        if self._stream.backlog_bytes < self._held_bytes:
            self._look_later()
            return
        self._stream.reset(ErrorCode.CANCEL)
        self._stream.let_go()
