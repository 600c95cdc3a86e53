"""A quantile over the latest of a stream of values. Pure."""

from __future__ import annotations

from ddsketch import DDSketch

_RELATIVE_ACCURACY = 0.02
# A guess from fewer values is no better than none.
_MIN_VALUES = 20
# Values after which a sketch is set aside, so that at most twice as many speak for the present.
_WINDOW_VALUES = 1_000


class RecentQuantile:
    """Made of two sketches: the one being filled, and the one filled before it."""

    def __init__(self) -> None:
        self._filling = DDSketch(_RELATIVE_ACCURACY)
        self._filled = DDSketch(_RELATIVE_ACCURACY)
        self._latest: tuple[float, float] | None = None  # the share last asked for, and its value

    def add(self, value: float) -> None:
        """Count a value, at least 0."""
        self._filling.add(value)
        if self._filling.count >= _WINDOW_VALUES:
            self._filled, self._filling = self._filling, DDSketch(_RELATIVE_ACCURACY)
        self._latest = None

    def value(self, share: float) -> float | None:
        """What ``share`` of the values are at most, within 2 %; None while there are too few."""
        if self._filled.count + self._filling.count < _MIN_VALUES:
            return None
        if self._latest is None or self._latest[0] != share:
            recent = DDSketch(_RELATIVE_ACCURACY)
            recent.merge(self._filled)
            recent.merge(self._filling)
            found = recent.get_quantile_value(share)
            self._latest = (share, 0.0 if found is None else found)
        return self._latest[1]
