"""How often to look at sockets that always have something: NIC drivers' interrupt moderation, for reads.

Where each token comes alone, a relay spends more on being woken, reading and writing than on the token. A loop that
looks every quarter of a millisecond finds a few tokens at once, and they share all of it. One that has work for longer
than that, as with requests, or is asked less often, as by a few streams, never waits.
"""

from __future__ import annotations

from typing import Final

# Of an engine's step a hundredth, and some times what it takes to be woken, to read and to write.
TURN_S: Final = 0.00025
# So many reads in a row make turns last: 20,000 a second. One client's requests, one after the other, make a quarter.
_READS: Final = 64
_DENSE_S: Final = _READS * 0.00005
# Held, nobody can tell how dense they would be. So they are let go now and then, which costs one part in eighty.
HOLD_S: Final = 0.25


class Pace:
    """When one event loop is to wait before it looks at its sockets again. Pure: times are passed in, in seconds."""

    __slots__ = ("_counted_from", "_held_until", "_reads", "_turn_began", "is_held")

    def __init__(self, now: float) -> None:
        self._reads = 0
        self._counted_from = now
        self._held_until = now
        self._turn_began = now
        self.is_held = False  # whether turns are to last

    def note_read(self, now: float) -> None:
        """A socket was read."""
        if self.is_held:
            if now < self._held_until:
                return
            self.is_held = False
            self._reads, self._counted_from = 0, now
        self._reads += 1
        if self._reads == _READS:
            self.is_held = now - self._counted_from < _DENSE_S
            self._held_until = now + HOLD_S
            self._reads, self._counted_from = 0, now

    def pause_s(self, now: float) -> float:
        """All that was there is read, and written; returns how long to wait, which is 0 or at most ``TURN_S``."""
        left_s = self._turn_began + TURN_S - now if self.is_held else 0.0
        pause_s = min(max(left_s, 0.0), TURN_S)
        self._turn_began = now + pause_s
        return pause_s
