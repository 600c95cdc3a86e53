"""An exponentially weighted rate of events. Pure; the clock is passed in."""

from __future__ import annotations

import math
from collections.abc import Callable

_TIME_CONSTANT_S = 10.0


class Rate:
    """Amounts per second, those of the last ``_TIME_CONSTANT_S`` weighing most. 0 before the first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_at = self._seen_at = clock()
        self._amount = 0.0

    @property
    def per_s(self) -> float:
        """The rate now."""
        now = self._clock()
        # In a young rate fewer seconds have been weighed than the time constant.
        weight_s = _TIME_CONSTANT_S * -math.expm1(-(now - self._started_at) / _TIME_CONSTANT_S)
        return self._decayed(now) / weight_s if weight_s > 0 else 0.0

    def add(self, amount: float) -> None:
        """Count ``amount`` as of now."""
        now = self._clock()
        self._amount = self._decayed(now) + amount
        self._seen_at = now

    def _decayed(self, now: float) -> float:
        return self._amount * math.exp(-(now - self._seen_at) / _TIME_CONSTANT_S)
