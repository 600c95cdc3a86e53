"""The core on a socket: an asyncio protocol, and the flusher that gathers writes.

Event loops call a protocol's methods by name. ``asyncio.Protocol`` is not inherited from, since no class with a base
that is not compiled can be compiled itself, and every read comes through here.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint
from tidegate.http2.errors import ErrorCode, Http2ConnectionError
from tidegate.http2.fields import Fields
from tidegate.http2.limits import Abuse
from tidegate.http2.pace import Pace
from tidegate.http2.streams import Stream, StreamHandler

_LOGGER = logging.getLogger(__name__)

ALPN: Final = "h2"
# Above the first mark DATA waits in its streams, where it is counted and bounded; below the second it goes on.
_HIGH_WATER_BYTES: Final = 64 * 2**10
_LOW_WATER_BYTES: Final = 16 * 2**10
_CLOSE_TIMEOUT_S: Final = 5.0
_TARPIT_S: Final = 1.0
_REST_S: Final = 2.0
_MAX_HELD: Final = 500


class Flusher:
    """Writes what the connections of one event loop have to say, once per read or per turn of the loop.

    Where tokens come one by one and by the thousand, it holds the loop for a moment, so that more come at once.
    """

    __slots__ = ("_clock", "_dirty", "_is_turn_noted", "_loop", "_pace", "_sleep", "held", "is_armed")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Share one between the connections that write to one another."""
        self._loop = loop
        self._clock = clock
        self._sleep = sleep
        self._dirty: list[Transport] = []
        self.is_armed = False
        self.held = 0  # connections that are over, and kept from coming back
        self._pace = Pace(clock())
        self._is_turn_noted = False

    def add(self, transport: Transport) -> None:
        """``transport`` has output."""
        self._dirty.append(transport)
        if not self.is_armed:
            self.is_armed = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write everything."""
        self.is_armed = False
        dirty = self._dirty
        while dirty:
            dirty.pop().flush()

    def note_read(self) -> None:
        """A connection was read; the loop has others to read before it waits, if any."""
        self._pace.note_read(self._clock())
        if self._pace.is_held and not self._is_turn_noted:
            self._is_turn_noted = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._is_turn_noted = False
        pause_s = self._pace.pause_s(self._clock())
        if pause_s:
            self._sleep(pause_s)  # the loop's own timers are of whole milliseconds


class Owner(Protocol):
    """Who made the transport: a server or a channel."""

    def on_made(self, transport: Transport) -> None:
        """The connection stands."""

    def on_request(self, transport: Transport, stream: Stream, fields: Fields, *, end_stream: bool) -> StreamHandler:
        """A well-formed request has come."""

    def on_lost(self, transport: Transport) -> None:
        """The connection is gone."""


class Transport:
    """One connection on its socket."""

    connection: Connection

    def __init__(self, endpoint: Endpoint, flusher: Flusher, owner: Owner) -> None:
        """``connection`` exists once the socket is connected."""
        self._endpoint = endpoint
        self._flusher = flusher
        self._owner = owner
        self._is_closing = False
        self._end: asyncio.TimerHandle | None = None  # of a socket that is closing
        self._is_held = False
        self._unread_bytes: int | None = None  # when last looked at, while they are many
        self._unread_at_s = 0.0
        self.peer = ""
        # Done once the peer has said its first words: until then nobody knows its limits, or that it speaks HTTP/2.
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def as_protocol(self) -> asyncio.Protocol:
        """For the event loop."""
        return cast("asyncio.Protocol", self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say the preface, unless TLS has agreed on something else than HTTP/2."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES, low=_LOW_WATER_BYTES)
        self.peer = str(transport.get_extra_info("peername"))
        self.connection = Connection(self._endpoint, wake=self._wake, accept=self._accept)
        self._owner.on_made(self)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != ALPN:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the core, then write what it and all connections that it has touched have to say."""
        flusher = self._flusher
        flusher.is_armed = True  # by the call below
        try:
            self.connection.receive(data)
        except Exception:
            _LOGGER.exception("a stream handler failed; its connection ends")
            self.connection.fail(Http2ConnectionError(ErrorCode.INTERNAL_ERROR, "internal error"))
        flusher.flush()
        flusher.note_read()
        if self.connection.is_finished:
            self.flush()
        if not self.greeted.done() and self.connection.session.settings_received:
            self.greeted.set_result(None)

    def eof_received(self) -> bool:
        """The peer writes no more: the socket is to be closed."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the streams."""
        self._is_closing = True
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._is_held:
            self._is_held = False
            self._flusher.held -= 1
        self.connection.lose()
        self._owner.on_lost(self)
        self.greeted.cancel()

    def pause_writing(self) -> None:
        """The socket does not keep up."""
        self.connection.outbound.pause()

    def resume_writing(self) -> None:
        """The socket has caught up."""
        self._unread_bytes = None
        self.connection.outbound.resume()

    @property
    def buffered_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the socket."""
        self._transport.abort()

    def tick(self) -> None:
        """Have the core look at the clock; about once a second."""
        self.connection.tick()
        self.flush()

    def flush(self) -> None:
        """Write the output, and close when the conversation is over."""
        connection = self.connection
        output = connection.take_output()
        if self._is_closing:
            return
        if output:
            self._transport.write(output)
        if connection.is_finished:
            self._is_closing = True
            if connection.was_abused and self._flusher.held < _MAX_HELD:
                # Who floods comes back when it is cut off, and each time costs more than a frame. Unread and unclosed,
                # it has nothing to come back from for a while.
                self._is_held = True
                self._flusher.held += 1
                self._transport.pause_reading()
                self._end = asyncio.get_running_loop().call_later(_TARPIT_S, self._transport.abort)
            else:
                self._transport.close()
                self._end = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self._transport.abort)
        elif connection.outbound.is_paused:
            self._check_unread()

    def _check_unread(self) -> None:
        limits, unread_bytes = self._endpoint.limits, self.buffered_bytes
        if unread_bytes <= limits.max_unread_bytes_at_rest:
            self._unread_bytes = None
            return
        is_at_rest, now_s = False, self._endpoint.clock()
        if self._unread_bytes is None or now_s - self._unread_at_s >= _REST_S:
            is_at_rest = self._unread_bytes is not None and unread_bytes >= self._unread_bytes
            self._unread_bytes, self._unread_at_s = unread_bytes, now_s
        if is_at_rest or unread_bytes > limits.max_unread_bytes:
            self._is_closing = True
            message = "replies are not read"
            self.connection.fail(Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, message, abuse=Abuse.UNREAD_REPLIES))
            self._transport.abort()

    def _wake(self) -> None:
        self._flusher.add(self)

    def _accept(self, stream: Stream, fields: Fields, end_stream: bool) -> StreamHandler:  # noqa: FBT001 - Acceptor
        return self._owner.on_request(self, stream, fields, end_stream=end_stream)
