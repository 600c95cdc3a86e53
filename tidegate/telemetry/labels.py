"""Label values that come from outside, held to a number that a metrics store can bear."""

from __future__ import annotations

OTHER = "other"

_DEFAULT_LIMIT = 100


class BoundedLabels:
    """The first ``limit`` values stand for themselves, all later ones for ``other``. Pure."""

    def __init__(self, limit: int = _DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def label(self, value: str) -> str:
        """What stands for ``value``, always the same."""
        if value in self._known:
            return value
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(value)
        return value
