"""How far a variant is from what it is compared with, by rounds that were taken right beside one another. Pure.

A machine whose speed changes by half within a second says little about two rounds that are further apart. Short ones
that alternate are met by the same machine; what it does in the midst of them is an outlier, and the median of many
ratios leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 4000
_TAILS_PERCENT = (2.5, 97.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A relative change, 0.01 for one percent more, and the 95 % interval in which it lies."""

    median: float
    low: float
    high: float

    @property
    def words(self) -> str:
        """For a table."""
        return f"{self.median:+.1%} ({self.low:+.1%} to {self.high:+.1%})"


def ratio(taken: Sequence[float], beside: Sequence[float]) -> float:
    """Of the sum of ``taken`` to that of what stands ``beside`` them: one before each, and one after the last."""
    if len(beside) != len(taken) + 1:
        raise ValueError(f"{len(taken)} and {len(beside)} do not alternate")
    # Each lies between two, of which it is compared with the mean.
    return sum(taken) / (sum(beside) - (beside[0] + beside[-1]) / 2)


def change(ratios: Sequence[float], *, seed: int) -> Change:
    """The median of ``ratios``, and its interval by drawing so many of them anew, again and again (bootstrap)."""
    values, rng = np.asarray(ratios), np.random.default_rng(seed)
    drawn = np.median(rng.choice(values, size=(_RESAMPLES, len(values))), axis=1)
    low, high = np.percentile(drawn, _TAILS_PERCENT)
    return Change(median=float(np.median(values)) - 1, low=float(low) - 1, high=float(high) - 1)


def verdict(change: Change, least: float) -> str:
    """Whether a change of at least ``least`` is shown, is ruled out, or neither since it lies inside the interval."""
    if change.low >= least:
        return "holds"
    return "does not hold" if change.high < least else "inside the interval"
