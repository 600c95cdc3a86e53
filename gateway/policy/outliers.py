"""Finds workers in a grey failure: they answer, report and fail nothing, but are far slower than their peers.

What counts is what this gateway measures, not what the worker says of itself: the time to the first token against the
prediction for it, and the time between tokens. Each worker is compared with the median of the others, so that a fleet
that is slow as a whole is nobody's fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum
from statistics import median

# Up to this many times slower than the others is a matter of load: in a batch of 256, tokens come a third as often.
_TOLERATED = 4.0
# Beyond, the weight falls with this power: a worker that is ten times slower keeps a fortieth of its chances.
_EXPONENT = 4.0
_MIN_WEIGHT = 0.01
# So many of the latest samples count, and so many are needed for an opinion.
_SAMPLES = 7
_MIN_SAMPLES = 4
# Old samples are forgotten, so that a slow worker is tried again.
_MAX_AGE_S = 60.0
# Predictions of a few milliseconds are missed by multiples without meaning.
FLOOR_S = 0.05


class Pace(Enum):
    """What is measured of each worker."""

    FIRST_TOKEN = "first token"  # noqa: S105 - seconds over the seconds predicted
    NEXT_TOKEN = "next token"  # noqa: S105 - seconds

    __hash__ = object.__hash__  # members are singletons, and Enum's own hash is not in C


class Outliers:
    """The latest samples of all workers that stand in for one another."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[Pace, deque[tuple[float, float]]]] = {}

    def add_first_token(self, worker_id: str, *, seconds: float, predicted_s: float, now: float) -> None:
        """A first token took so long on the worker."""
        self._add(worker_id, Pace.FIRST_TOKEN, seconds / (predicted_s + FLOOR_S), now)

    def add_next_token(self, worker_id: str, *, seconds: float, now: float) -> None:
        """The tokens of a stream came at this interval, on average."""
        self._add(worker_id, Pace.NEXT_TOKEN, seconds, now)

    def forget(self, worker_id: str) -> None:
        """The worker is gone, or has started anew."""
        self._samples.pop(worker_id, None)

    def slowness(self, now: float) -> dict[str, float]:
        """How many times slower than its peers each worker is, for those of which there is an opinion."""
        result: dict[str, float] = {}
        for pace in Pace:
            values = self._medians(pace, now)
            for worker_id, value in values.items():
                others = [other for peer, other in values.items() if peer != worker_id]
                if others and (typical := median(others)) > 0:
                    result[worker_id] = max(result.get(worker_id, 0.0), value / typical)
        return result

    def weights(self, now: float) -> Mapping[str, float]:
        """The share of its chances that each slow worker is given; those without one have the whole.

        Less than half of the workers are weighed down: the fleet would be wrong about the rest.
        """
        if len(self._samples) < 2:  # noqa: PLR2004 - nobody is slow by himself
            return {}
        slow = {worker_id: times for worker_id, times in self.slowness(now).items() if times > _TOLERATED}
        allowed = max(1, (len(self._samples) - 1) // 2)
        slowest = sorted(slow, key=lambda worker_id: (-slow[worker_id], worker_id))[:allowed]
        return {worker_id: max(_MIN_WEIGHT, (_TOLERATED / slow[worker_id]) ** _EXPONENT) for worker_id in slowest}

    def _add(self, worker_id: str, pace: Pace, value: float, now: float) -> None:
        by_pace = self._samples.get(worker_id)
        if by_pace is None:
            by_pace = self._samples[worker_id] = {each: deque(maxlen=_SAMPLES) for each in Pace}
        by_pace[pace].append((now, value))

    def _medians(self, pace: Pace, now: float) -> dict[str, float]:
        medians: dict[str, float] = {}
        for worker_id, by_pace in self._samples.items():
            recent = [value for at, value in by_pace[pace] if now - at <= _MAX_AGE_S]
            if len(recent) >= _MIN_SAMPLES:
                medians[worker_id] = median(recent)
        return medians
