"""One stream: its life cycle as a table, its windows, and what waits to be sent on it.

Relation to the connection: a stream writes frames into the connection's output as long as both windows are open and
the transport takes them; what is left waits here as its backlog, bounded by whoever produces it (a relay by the window
it grants its source, a server by asking ``backlog_bytes``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from tidegate.http2.flow import ReceiveWindow, widened
from tidegate.http2.frames import (
    DATA,
    END_STREAM,
    MAX_FRAME_BYTES,
    data_header,
    header,
    header_block,
    rst_stream,
    window_update,
)

if TYPE_CHECKING:
    from tidegate.http2.fields import Fields
    from tidegate.http2.outbound import Outbound
    from tidegate.http2.stream_table import StreamTable


class State(Enum):
    """RFC 9113, section 5.1; an idle stream has no object, and reserved ones need push, which is off."""

    __hash__ = object.__hash__  # members are singletons, and Enum's own hash is not in C

    OPEN = "open"
    HALF_CLOSED_LOCAL = "half-closed (local)"
    HALF_CLOSED_REMOTE = "half-closed (remote)"
    CLOSED = "closed"


class Signal(Enum):
    """What moves a stream from one state to another."""

    __hash__ = object.__hash__  # as above

    SEND_END = "END_STREAM sent"
    RECEIVE_END = "END_STREAM received"
    RESET = "RST_STREAM sent or received, or the connection lost"


TRANSITIONS: Final[dict[State, dict[Signal, State]]] = {
    State.OPEN: {
        Signal.SEND_END: State.HALF_CLOSED_LOCAL,
        Signal.RECEIVE_END: State.HALF_CLOSED_REMOTE,
        Signal.RESET: State.CLOSED,
    },
    State.HALF_CLOSED_LOCAL: {Signal.RECEIVE_END: State.CLOSED, Signal.RESET: State.CLOSED},
    State.HALF_CLOSED_REMOTE: {Signal.SEND_END: State.CLOSED, Signal.RESET: State.CLOSED},
    State.CLOSED: {},
}


# What the states say about us and the peer.
_CAN_SEND: Final = frozenset((State.OPEN, State.HALF_CLOSED_REMOTE))
_CAN_RECEIVE: Final = frozenset((State.OPEN, State.HALF_CLOSED_LOCAL))
_CLOSED: Final = State.CLOSED


class EndCause(Enum):
    """Why a stream ended before both sides had finished."""

    RESET_BY_PEER = "the peer reset the stream"
    REFUSED = "the peer did not process the stream"  # safe to try elsewhere
    PEER_FAULT = "the peer broke the protocol"
    CONNECTION_LOST = "the connection was lost"


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """An early end. ``code`` is the RST_STREAM's or GOAWAY's, which need not be a known one."""

    cause: EndCause
    code: int


class StreamHandler(Protocol):
    """What happens to a stream, told by calls from inside ``Connection.receive`` or its closing methods."""

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """A field section after the one that opened the stream: a response's head, or trailers."""

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """Bytes, without padding. They fill the stream's window until ``Stream.consume`` gives it back."""

    def on_sent(self, size: int) -> None:
        """``size`` bytes have left the backlog."""

    def on_end(self, end: StreamEnd) -> None:
        """The stream ended early; nothing follows."""


class _Nobody:
    """Handles a stream on which nothing happens any more."""

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        """As ``StreamHandler.on_headers``."""

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        """As ``StreamHandler.on_data``."""

    def on_sent(self, size: int) -> None:
        """As ``StreamHandler.on_sent``."""

    def on_end(self, end: StreamEnd) -> None:
        """As ``StreamHandler.on_end``."""


_NOBODY: Final = _Nobody()


class Stream:
    """An open stream. Sending on one that has ended is a no-op, since the news of an end may cross."""

    __slots__ = (
        "_backlog",
        "_ending",
        "_outbound",
        "_table",
        "backlog_bytes",
        "can_receive",
        "can_send",
        "checks_content",
        "content_bytes_left",
        "handler",
        "has_answered",
        "has_head",
        "id",
        "is_queued",
        "receive_window",
        "send_window",
        "state",
    )

    handler: StreamHandler

    def __init__(
        self, stream_id: int, *, outbound: Outbound, table: StreamTable, send_window: int, receive_window: int
    ) -> None:
        """Open; the opener sets ``handler`` before anything else can happen."""
        self.id = stream_id
        self.state = State.OPEN
        # What the table of states says about us and the peer, kept for the hot path.
        self.can_send = True
        self.can_receive = True
        self.send_window = send_window
        self.backlog_bytes = 0
        self.is_queued = False  # for a turn in Outbound.pump
        self.receive_window = ReceiveWindow(receive_window)
        self.has_answered = False  # whether we have sent a head, and go on
        self.has_head = False  # whether the peer's next field section is its trailers
        self.content_bytes_left: int | None = None  # of a peer that announced a content-length
        self.checks_content = True  # whether DATA may be wrong here: no head yet, or a content-length to keep
        self._outbound = outbound
        self._table = table
        self._backlog: deque[bytes] | None = None
        self._ending: bytes | None = None  # frames that end our side, waiting behind the backlog

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent or received any more."""
        return self.state is _CLOSED

    def advance(self, signal: Signal) -> None:
        """Follow the table of states; the table of streams forgets a stream that closes."""
        state = self.state = TRANSITIONS[self.state][signal]
        self.can_receive = state in _CAN_RECEIVE
        self.can_send = self.can_send and state in _CAN_SEND
        if state is _CLOSED:
            self._table.forget(self)

    def expect_content(self, content_bytes: int | None) -> None:
        """The peer's head has come, with or without a content-length."""
        self.has_head = True
        self.content_bytes_left = content_bytes
        self.checks_content = content_bytes is not None

    def consume(self, size: int) -> None:
        """Give ``size`` received bytes back to the peer's window: they are held no longer."""
        window = self.receive_window
        window.used += size
        if window.used >= window.threshold and self.can_receive:
            self._outbound.write(window_update(self.id, window.give_back()))

    def send_headers(self, block: bytes, *, end_stream: bool = False) -> None:
        """Send an encoded field section; one that ends the stream goes behind the backlog."""
        if not self.can_send:
            return
        frames = header_block(self.id, self._outbound.first_block_prefix() + block, end_stream=end_stream)
        if end_stream:
            self._end_with(frames)
        else:
            self.has_answered = True
            self._outbound.write(frames)

    def send_data(self, payload: bytes, *, end_stream: bool = False) -> bool:
        """Send bytes, or keep them in the backlog: then False, and ``on_sent`` tells when they leave it."""
        if not self.can_send:
            return True
        outbound = self._outbound
        size = len(payload)
        if (
            size <= self.send_window
            and size <= outbound.window
            and size <= MAX_FRAME_BYTES
            and not self._backlog
            and not outbound.is_paused
        ):
            self.send_window -= size
            outbound.window -= size
            if not end_stream:
                outbound.write_data(data_header(self.id, size), payload)
                return True
            outbound.write_data(header(DATA, END_STREAM, self.id, size), payload)
            self.advance(Signal.SEND_END)
            return True
        if size:
            self._keep(payload, size)
        if end_stream:
            self._end_with(header(DATA, END_STREAM, self.id, 0))
        if size:
            outbound.queue(self)
            outbound.pump()
        return not size

    def reset(self, code: int) -> None:
        """Send RST_STREAM and forget the stream. The handler is not told: it is the one who asks."""
        if not self.is_closed:
            self._outbound.write(rst_stream(self.id, code))
            self._table.remember_reset(self.id)
            self.discard()

    def discard(self) -> None:
        """Close without a word to the peer, who has reset the stream or is gone."""
        self._backlog = self._ending = None
        self.backlog_bytes = 0
        self.advance(Signal.RESET)

    def let_go(self) -> None:
        """Forget the handler of a stream that is closed.

        It keeps the stream, too: all that a request has made would stay until the garbage collector comes, and the
        next one be made in memory that no cache holds.
        """
        if self.state is _CLOSED:
            self.handler = _NOBODY

    def widen(self, increment: int) -> None:
        """The peer has widened our window, or narrowed it by SETTINGS. Raises ``WindowOverflowError``."""
        self.send_window = widened(self.send_window, increment)
        if self._backlog:
            self._outbound.queue(self)
            self._outbound.pump()

    def send_backlog(self) -> None:
        """Send one frame of the backlog, as far as both windows allow, and the stream's end with the last."""
        backlog, outbound = self._backlog, self._outbound
        size = min(self.send_window, outbound.window)
        if not backlog or size <= 0:
            return
        payload = backlog.popleft()
        if len(payload) > size:
            backlog.appendleft(payload[size:])
            payload = payload[:size]
        size = len(payload)
        self.send_window -= size
        outbound.window -= size
        self.backlog_bytes -= size
        outbound.write_data(data_header(self.id, size), payload)
        if backlog:
            outbound.queue(self)
        elif self._ending is not None:
            self._write_ending(self._ending)
        self.handler.on_sent(size)

    def _keep(self, payload: bytes, size: int) -> None:
        if self._backlog is None:
            self._backlog = deque()
        if size <= MAX_FRAME_BYTES:
            self._backlog.append(payload)
        else:
            self._backlog.extend(payload[at : at + MAX_FRAME_BYTES] for at in range(0, size, MAX_FRAME_BYTES))
        self.backlog_bytes += size

    def _end_with(self, frames: bytes) -> None:
        if self._backlog:
            self._ending = frames
            self.can_send = False
        else:
            self._write_ending(frames)

    def _write_ending(self, frames: bytes) -> None:
        self._ending = None
        self._outbound.write(frames)
        self.advance(Signal.SEND_END)
