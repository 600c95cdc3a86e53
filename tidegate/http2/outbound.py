"""The sending half of a connection: output gathered between flushes, the connection's window, and whose turn it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidegate.http2.fields import NO_DYNAMIC_TABLE
from tidegate.http2.flow import widened
from tidegate.http2.limits import DEFAULT_WINDOW_BYTES

if TYPE_CHECKING:
    from tidegate.http2.streams import Stream


class Outbound:
    """Frames on their way to one peer.

    Streams whose own window is open but which have to wait for the connection's, or for the transport, take turns of
    one frame each.
    """

    __slots__ = ("_block_sent", "_granted_bytes", "_parts", "_ready", "_wake", "is_paused", "window", "written_parts")

    def __init__(self, wake: Callable[[], None]) -> None:
        """``wake`` is called when there is output after there was none."""
        self.window = self._granted_bytes = DEFAULT_WINDOW_BYTES
        self.is_paused = False
        self.written_parts = 0  # how many pieces of output were taken so far; a DATA frame is two
        self._wake = wake
        self._parts: list[bytes] = []
        self._ready: deque[Stream] = deque()
        self._block_sent = False

    def write(self, frames: bytes) -> None:
        """Add whole frames."""
        if not self._parts:
            self._wake()
        self._parts.append(frames)

    def write_data(self, header: bytes, payload: bytes) -> None:
        """Add a DATA frame; windows are the caller's business."""
        parts = self._parts
        if not parts:
            self._wake()
        parts.append(header)
        parts.append(payload)

    @property
    def sent_data_bytes(self) -> int:
        """Of DATA, so far."""
        return self._granted_bytes - self.window

    def take_output(self) -> bytes:
        """All that was written since the last call."""
        parts = self._parts
        self.written_parts += len(parts)
        output = b"".join(parts)
        parts.clear()
        return output

    def first_block_prefix(self) -> bytes:
        """What has to stand before a connection's first field block, and b"" from the second on."""
        if self._block_sent:
            return b""
        self._block_sent = True
        return NO_DYNAMIC_TABLE

    def queue(self, stream: Stream) -> None:
        """Give ``stream`` a turn, if its own window is open. Another that is queued already keeps its place."""
        if not stream.is_queued and stream.send_window > 0:
            stream.is_queued = True
            self._ready.append(stream)

    def pump(self) -> None:
        """Send backlogs while the connection's window and the transport allow."""
        ready = self._ready
        while ready and self.window > 0 and not self.is_paused:
            stream = ready.popleft()
            stream.is_queued = False
            stream.send_backlog()

    def widen(self, increment: int) -> None:
        """The peer has widened the connection's window. Raises ``WindowOverflowError``."""
        self.window = widened(self.window, increment)
        self._granted_bytes += increment
        self.pump()

    def pause(self) -> None:
        """The transport holds as much as it should: DATA waits, control frames do not."""
        self.is_paused = True

    def resume(self) -> None:
        """The transport takes more."""
        self.is_paused = False
        self.pump()

    def let_go(self) -> None:
        """The socket is gone: forget who is to be woken, and whose turn it is; each of them knows this one."""
        self._wake = _nobody
        self._ready.clear()


def _nobody() -> None:
    pass
