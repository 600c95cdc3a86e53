"""Flow-control windows (RFC 9113, sections 5.2 and 6.9)."""

from __future__ import annotations

from tidegate.http2.frames import MAX_WINDOW_BYTES


class WindowOverflowError(ValueError):
    """A window would grow past 2**31 - 1 bytes."""


def widened(window: int, increment: int) -> int:
    """A send window after the peer has widened it; both may be negative after a change of SETTINGS."""
    window += increment
    if window > MAX_WINDOW_BYTES:
        raise WindowOverflowError(f"window of {window} bytes")
    return window


class ReceiveWindow:
    """What the peer may still send, and what has been used of it without being given back.

    On receipt ``available`` shrinks, on use ``used`` grows: the gap between the two is what is held here, never
    more than the window. Callers on the hot path do both by hand.
    """

    __slots__ = ("available", "threshold", "used")

    def __init__(self, size: int) -> None:
        """``size`` in bytes, as announced to the peer."""
        self.available = size
        self.used = 0
        self.threshold = size // 2  # of use, from which on it is worth a frame to give it back

    def give_back(self) -> int:
        """Let the peer send as much again as was used; returns the increment to announce."""
        increment, self.used = self.used, 0
        self.available += increment
        return increment
