"""How much the ledger overcommits: which quantile of past outputs a reservation is made for. Pure.

Too low, and requests outgrow the pool: the engine preempts, and computes again what it had. Too high, and blocks stand
reserved that nobody ever fills. What happened of late decides: a preemption raises the quantile at once; a ledger that
stays full while the pool has blocks to spare lowers it, the faster the more it has to spare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Longer than a first token takes under load: what was admitted in one window shows in the next.
_WINDOW_S = 1.0
_STEP_UP = 0.05
# The share of the pool that was not used, within these bounds: of a pool that is nearly full little is to be had.
_LEAST_STEP_DOWN, _MOST_STEP_DOWN = 0.005, 0.04
_LEAST, _MOST = 0.3, 0.98
# The pool is used well from this share on: what is left is for requests that outgrow their reservations. Some do, and
# are preempted; under overload a pool used to 96 % and without a preemption served 3 % fewer tokens in time.
_FULL_USE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """The pool after an engine step. ``preemptions`` is a count since the start.

    ``is_full``: the ledger would admit no usual request for want of blocks, whatever the pool itself has to spare.
    """

    used_blocks: int
    total_blocks: int
    preemptions: int
    is_full: bool


class Overcommit:
    """Told of the pool after each step; ``quantile`` is its answer."""

    def __init__(self, *, quantile: float, clock: Callable[[], float]) -> None:
        """``quantile`` is where it begins."""
        self.quantile = quantile
        self._clock = clock
        self._window_began_at = clock()
        self._preemptions = 0  # before this window
        self._highest_use = 0.0
        self._is_full = False  # in this window
        self._was_full = False  # in the one before

    def observe(self, pool: PoolUse) -> None:
        """Count a step."""
        self._highest_use = max(self._highest_use, pool.used_blocks / pool.total_blocks)
        self._is_full = self._is_full or pool.is_full
        if self._clock() - self._window_began_at < _WINDOW_S:
            return
        if pool.preemptions > self._preemptions:
            self.quantile = max(self.quantile, min(_MOST, self.quantile + _STEP_UP))
        elif self._is_full and self._was_full and self._highest_use < _FULL_USE:
            # A pool that has only just been filled is full of requests that have most of their output before them.
            step = max(_LEAST_STEP_DOWN, min(_FULL_USE - self._highest_use, _MOST_STEP_DOWN))
            self.quantile = min(self.quantile, max(_LEAST, self.quantile - step))
        self._window_began_at = self._clock()
        self._preemptions, self._highest_use = pool.preemptions, 0.0
        self._was_full, self._is_full = self._is_full, False
