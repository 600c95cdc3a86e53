"""How long a worker has said nothing, counted only in time in which it would have been heard.

While this process stands still, for want of a CPU or with its event loop blocked, reports lie unread in the socket:
that is no sign of a worker's death. Reading them takes some turns of the loop, and a loop that is late makes few of
them. So each look at the clock counts for little more than the time after which it was due, however late it comes.
"""

from __future__ import annotations

# Looks follow each other after so many seconds,
LOOK_S = 0.2
# and count for at most this: a loop that is a little late all the time does not make the worker's time longer.
_MOST_COUNTED_S = 0.3


class Silence:
    """The silence since the last report; make one for each report that is awaited. Look at it every ``LOOK_S``."""

    def __init__(self, patience_s: float, now: float) -> None:
        """A worker is lost after ``patience_s``."""
        self._left_s = patience_s
        self._looked_at = now

    def is_too_long(self, now: float) -> bool:
        """Whether the worker is lost."""
        self._left_s -= min(now - self._looked_at, _MOST_COUNTED_S)
        self._looked_at = now
        return self._left_s <= 0
