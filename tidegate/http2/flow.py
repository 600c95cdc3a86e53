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

    ``take`` on receipt, ``give_back`` on use: the gap between the two is what is held here. It never exceeds ``size``.
    """

    __slots__ = ("available", "size", "used")

    def __init__(self, size: int) -> None:
        """``size`` in bytes, as announced to the peer."""
        self.size = size
        self.available = size
        self.used = 0

    def take(self, count: int) -> bool:
        """Account for ``count`` received bytes; False when the peer had no right to send them."""
        self.available -= count
        return self.available >= 0

    def give_back(self, count: int) -> int:
        """Account for ``count`` used bytes. Returns the increment to announce: 0, or at least half the window."""
        self.used += count
        if self.used * 2 < self.size:
            return 0
        increment, self.used = self.used, 0
        self.available += increment
        return increment
