"""When a worker whose engine died is started again, and when that is given up. Pure; time is passed in."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartLimits:
    """``max_deaths`` in a row, each before ``stable_s`` were over, are enough. Waits double up to ``max_wait_s``."""

    max_deaths: int = 5
    stable_s: float = 60.0
    max_wait_s: float = 30.0


class RestartPolicy:
    """Counts deaths in a row."""

    def __init__(self, limits: RestartLimits) -> None:
        self._limits = limits
        self._deaths = 0

    def wait_s(self, *, lived_s: float) -> float | None:
        """A process that lived so long has died: how long to wait before the next one; None to give up."""
        if lived_s >= self._limits.stable_s:
            self._deaths = 0
        self._deaths += 1
        if self._deaths >= self._limits.max_deaths:
            return None
        return min(self._limits.max_wait_s, _FIRST_WAIT_S * 2.0 ** (self._deaths - 1))
