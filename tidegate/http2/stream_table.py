"""Which streams of a connection are open, and what is known of those that are not (RFC 9113, section 5.1.1)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tidegate.http2.errors import ErrorCode, Http2ConnectionError
from tidegate.http2.frames import MAX_STREAM_ID

if TYPE_CHECKING:
    from tidegate.http2.streams import Stream

# The peer goes on sending on a stream that we have reset until it hears of it. Older resets than these are forgotten
# by servers; frames on such streams are then errors of the stream, which costs one more RST_STREAM each.
_RESETS_REMEMBERED = 1024


class StreamTable:
    """The streams of one connection by id. Clients open odd ids, and servers, without push, none."""

    __slots__ = ("_is_client", "_last_id", "_reset_ids", "_resets", "open")

    def __init__(self, *, is_client: bool) -> None:
        """``is_client`` says which side we are."""
        self.open: dict[int, Stream] = {}
        self._is_client = is_client
        self._last_id = 0  # the highest id opened by the client, whether that is us or the peer
        self._resets: deque[int] = deque()
        self._reset_ids: set[int] = set()

    @property
    def last_id(self) -> int:
        """The highest id opened so far."""
        return self._last_id

    def next_id(self) -> int:
        """The id for a stream that we open."""
        self._last_id = self._last_id + 2 if self._last_id else 1
        return self._last_id

    @property
    def has_ids(self) -> bool:
        """Whether we may open another stream on this connection."""
        return self._last_id + 2 <= MAX_STREAM_ID

    def accept(self, stream_id: int) -> None:
        """The peer opens ``stream_id``. Raises ``Http2ConnectionError`` if it must not."""
        if self._is_client or stream_id % 2 == 0 or stream_id <= self._last_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} cannot be opened")
        self._last_id = stream_id

    def is_idle(self, stream_id: int) -> bool:
        """Whether the stream was never opened."""
        return stream_id > self._last_id or stream_id % 2 == 0

    def forget(self, stream: Stream) -> None:
        """The stream has closed."""
        self.open.pop(stream.id, None)

    def remember_reset(self, stream_id: int) -> None:
        """We have reset the stream: what the peer still sends on it is no fault."""
        if stream_id in self._reset_ids:
            return
        self._reset_ids.add(stream_id)
        self._resets.append(stream_id)
        if len(self._resets) > _RESETS_REMEMBERED:
            self._reset_ids.discard(self._resets.popleft())

    def was_reset(self, stream_id: int) -> bool:
        """Whether we reset the stream lately; for a client, whether it opened the stream and it is closed.

        A client that loses a worker resets thousands at once, whose answers may be on their way.
        """
        if self._is_client:
            return stream_id not in self.open and not self.is_idle(stream_id)
        return stream_id in self._reset_ids
