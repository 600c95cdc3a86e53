"""The end of a stream whose answer is complete while its request is not.

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
