"""A bucket that fills at an even rate, and that may owe: what was taken is set right when more is known."""

from __future__ import annotations

from dataclasses import dataclass

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What is left in a bucket of ``per_minute``; negative when more was used than had been taken."""

    per_minute: float
    left: float

    def wait_s(self, units: float) -> float | None:
        """Seconds until so many ``units`` can be taken; None when there will never be so many."""
        if units > self.per_minute:
            return None
        return max(0.0, units - self.left) * _MINUTE_S / self.per_minute


class Bucket:
    """At most ``per_minute`` units at once, and as many per minute. It is full at first."""

    def __init__(self, per_minute: float, now: float) -> None:
        if not per_minute > 0:
            raise ValueError("per_minute is above 0")
        self.per_minute = per_minute
        self._level = per_minute
        self._seen_at = now

    def level(self, now: float) -> float:
        """Units there are."""
        return min(self.per_minute, self._level + (now - self._seen_at) * self.per_minute / _MINUTE_S)

    def take(self, units: float, now: float) -> None:
        """Take ``units``, whether they are there or not; negative ones are given back."""
        self._level = min(self.per_minute, self.level(now) - units)
        self._seen_at = now
