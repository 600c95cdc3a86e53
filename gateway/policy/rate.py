"""How fast something comes and goes. Pure; time is passed in."""

from __future__ import annotations

import math


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
