"""A clock that stands still until it is moved."""

from __future__ import annotations


class ManualClock:
    """Time, in seconds, that passes when told to."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
