"""How fast room comes free while the ledger is full: what the worker can do, and not what it is asked for. Pure.

In quiet hours what comes free tells how much was asked for. So time counts only while no usual request would be
admitted, and a moment longer: of the room that a request gives back, gateways hear a report and a hop later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

_LINGER_S = 0.25
_MIN_RELEASES, _MAX_RELEASES = 8, 128


class Drain:
    """Told of each release, and of whether the ledger is full."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._busy_s = 0.0  # up to the beginning of the present busy time
        self._busy_since: float | None = None
        self._busy_until = math.inf  # while the ledger is full
        self._releases: deque[tuple[float, float]] = deque(maxlen=_MAX_RELEASES)  # by busy time
        self._amount = 0.0  # of all but the oldest, whose time is where the counting begins

    @property
    def per_s(self) -> float:
        """The amount per second of busy time; 0 as long as too little is known."""
        if len(self._releases) < _MIN_RELEASES:
            return 0.0
        seconds = self._busy_time() - self._releases[0][0]
        return self._amount / seconds if seconds > 0 else 0.0

    def set_full(self, is_full: bool) -> None:  # noqa: FBT001 - a state, set
        """The ledger is full, or it is not."""
        now = self._clock()
        if is_full:
            if self._busy_since is None or now > self._busy_until:
                self._busy_s = self._busy_time()
                self._busy_since = now
            self._busy_until = math.inf
        elif self._busy_until == math.inf:
            self._busy_until = now + _LINGER_S

    def release(self, amount: float) -> None:
        """So much has come free."""
        if self._busy_since is None or self._clock() > self._busy_until:
            return
        if len(self._releases) == _MAX_RELEASES:
            self._amount -= self._releases[1][1]
        if self._releases:
            self._amount += amount
        self._releases.append((self._busy_time(), amount))

    def _busy_time(self) -> float:
        if self._busy_since is None:
            return self._busy_s
        return self._busy_s + min(self._clock(), self._busy_until) - self._busy_since
