"""What comes often, in bounded memory: Misra and Gries's summary, purged as Apache DataSketches purges it. Pure.

Of 2 x ``size`` counters the lower half goes at a time, and its greatest count is taken from all others. So a count is
never too high, what comes more often than one time in ``size`` is never lost, and an update costs one look into a dict.
"""

from __future__ import annotations

from collections.abc import Iterable


class Frequent:
    """Counts of the frequent among all items that were seen; what was long ago is forgotten by and by."""

    def __init__(self, *, size: int, half_life: int) -> None:
        """``size`` counters are kept; after ``half_life`` batches of items all counts are halved."""
        self._size = size
        self._half_life = half_life
        self._counts: dict[int, int] = {}
        self._batches = 0

    def add(self, items: Iterable[int]) -> None:
        """Count each of ``items`` once."""
        counts = self._counts
        for item in items:
            counts[item] = counts.get(item, 0) + 1
        self._batches += 1
        if self._batches % self._half_life == 0:
            self._counts = {item: count // 2 for item, count in counts.items() if count > 1}
        if len(self._counts) > 2 * self._size:
            self._purge()

    def count(self, item: int) -> int:
        """How often it came, at least."""
        return self._counts.get(item, 0)

    def _purge(self) -> None:
        threshold = sorted(self._counts.values(), reverse=True)[self._size]
        self._counts = {item: count - threshold for item, count in self._counts.items() if count > threshold}
