"""When a client is too slow a reader. A stream that nobody reads still holds KV cache blocks on its worker.

What it does not read is held back by flow control, so that it costs little memory here; its tokens are merged
meanwhile. A client that takes something now and then is waited for; one that takes nothing for too long is given up.
"""

from __future__ import annotations


class SlowReader:
    """One stream's reader, looked at from time to time. Times are in seconds of any one clock that does not go back."""

    __slots__ = ("_limit_s", "_stalled_since", "_taken_bytes")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._taken_bytes = 0
        self._stalled_since: float | None = None

    @property
    def look_again_s(self) -> float:
        """When to look next: a stall is noticed at most a quarter of the limit late."""
        return self._limit_s / 4

    def stalled_s(self, now: float) -> float:
        """For how long nothing has been taken of what is held."""
        return 0.0 if self._stalled_since is None else now - self._stalled_since

    def look(self, *, held_bytes: int, taken_bytes: int, now: float) -> bool:
        """Whether the client has taken nothing for the limit. ``taken_bytes`` counts from the stream's beginning."""
        if not held_bytes:
            self._stalled_since = None
        elif self._stalled_since is None or taken_bytes != self._taken_bytes:
            self._stalled_since = now
        self._taken_bytes = taken_bytes
        return self._stalled_since is not None and now - self._stalled_since >= self._limit_s
