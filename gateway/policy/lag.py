"""How much later first tokens come than the workers' rates foretell: the way there and back, and a host that is busy.

Kept as TCP keeps its round-trip time (RFC 6298): a moving mean, and a moving mean of the deviation from it.
"""

from __future__ import annotations

import math

_MEAN_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4
_DEVIATIONS = 2
# So that requests refused for its sake do not keep it as it is: who is never tried is never measured.
_TIME_CONSTANT_S = 30.0


class Lag:
    """One estimate. It is 0 before the first sample, and fades while there are none."""

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._deviation_s = 0.0
        self._seen_at: float | None = None

    def seconds(self, now: float) -> float:
        """What to reckon with."""
        if self._seen_at is None:
            return 0.0
        fading = math.exp(-(now - self._seen_at) / _TIME_CONSTANT_S)
        return max(0.0, (self._mean_s + _DEVIATIONS * self._deviation_s) * fading)

    def add(self, seconds: float, now: float, *, is_lower_bound: bool = False) -> None:
        """A first token came ``seconds`` later than foretold; ``is_lower_bound``: it had not come by then."""
        if is_lower_bound and seconds <= self.seconds(now):
            return
        if self._seen_at is None:
            self._mean_s, self._deviation_s = seconds, abs(seconds) / 2
        else:
            self._deviation_s += _DEVIATION_GAIN * (abs(seconds - self._mean_s) - self._deviation_s)
            self._mean_s += _MEAN_GAIN * (seconds - self._mean_s)
        self._seen_at = now
