"""How fast something comes and goes. Pure; time is passed in."""

from __future__ import annotations

import math
from collections import deque

_MIN_RELEASES = 8
_MAX_RELEASES = 128


class Rate:
    """Amounts per second, exponentially weighted. 0 before the first."""

    def __init__(self, time_constant_s: float) -> None:
        self._time_constant_s = time_constant_s
        self._began_at: float | None = None
        self._seen_at = 0.0
        self._amount = 0.0

    def add(self, amount: float, now: float) -> None:
        """Count ``amount``."""
        if self._began_at is None:
            self._began_at = now
        self._amount = self._decayed(now) + amount
        self._seen_at = now

    def per_s(self, now: float) -> float:
        """The rate. It is taken over one second at least: of a burst's first instant no rate can be told."""
        if self._began_at is None:
            return 0.0
        # In a young rate fewer seconds have been weighed than the time constant.
        age_s = max(1.0, now - self._began_at)
        return self._decayed(now) / (self._time_constant_s * -math.expm1(-age_s / self._time_constant_s))

    def _decayed(self, now: float) -> float:
        return self._amount * math.exp(-(now - self._seen_at) / self._time_constant_s)


class Drain:
    """Tokens per second that come free while somebody waits for them.

    The hours in which nobody waits do not count: what came free then tells how much was asked for, not how much could
    have been served.
    """

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._busy_since: float | None = None
        self._releases: deque[tuple[float, int]] = deque(maxlen=_MAX_RELEASES)
        self._tokens = 0  # of all but the oldest, whose time is where the counting begins

    def set_busy(self, is_busy: bool, now: float) -> None:  # noqa: FBT001 - a state, set
        """Somebody waits, or nobody does."""
        if self._busy_since is not None:
            self._busy_s += now - self._busy_since
        self._busy_since = now if is_busy else None

    def release(self, tokens: int, now: float) -> None:
        """So many tokens' blocks have come free."""
        if self._busy_since is None:
            return
        if len(self._releases) == _MAX_RELEASES:
            self._tokens -= self._releases[1][1]
        if self._releases:
            self._tokens += tokens
        self._releases.append((self._busy_time(now), tokens))

    def tokens_per_s(self, now: float) -> float | None:
        """None as long as too little is known."""
        if len(self._releases) < _MIN_RELEASES:
            return None
        seconds = self._busy_time(now) - self._releases[0][0]
        return self._tokens / seconds if seconds > 0 else None

    def _busy_time(self, now: float) -> float:
        return self._busy_s + (now - self._busy_since if self._busy_since is not None else 0.0)
