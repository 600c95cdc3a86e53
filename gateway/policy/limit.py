"""Bounds what this gateway holds at one time, and tells those refused when to come back."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

# Bounds of the advice when to come back, in seconds, and the advice when nothing was given back of late.
_MIN_RETRY_S, _MAX_RETRY_S, _UNKNOWN_RETRY_S = 0.1, 10.0, 1.0
# How far back the rate looks, in seconds.
_WINDOW_S = 5.0
# Callers are asked back when this share of the limit is expected to have come free, and not one by one.
_SHARE_TO_WAIT_FOR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a limit judges by. ``released`` units were given back of late."""

    total: int
    in_use: int
    released: int

    def refusal_s(self, units: int, rng: random.Random) -> float | None:
        """None where so many units are free; otherwise when to come back, in seconds, drawn from a range.

        What was refused together is not to come back together.
        """
        if self.in_use + units <= self.total:
            return None
        expected_s = self.total * _SHARE_TO_WAIT_FOR * _WINDOW_S / self.released if self.released else _UNKNOWN_RETRY_S
        return min(_MAX_RETRY_S, max(_MIN_RETRY_S, expected_s * rng.uniform(0.5, 1.5)))


class Limit:
    """At most ``total`` units in use; a unit is a request or a byte, as the owner has it."""

    def __init__(self, total: int, *, clock: Callable[[], float], rng: random.Random) -> None:
        if total < 1:
            raise ValueError("total is at least 1")
        self.total = total
        self.in_use = 0
        self._clock = clock
        self._rng = rng
        self._window_began_at = clock()
        self._released = 0  # in this window
        self._released_before = 0  # in the window before

    @property
    def usage(self) -> Usage:
        """What is in use, and what was given back of late."""
        self._turn_window()
        return Usage(total=self.total, in_use=self.in_use, released=max(self._released, self._released_before))

    def can_take(self, units: int = 1) -> bool:
        """Whether so many units are free."""
        return self.in_use + units <= self.total

    def try_take(self, units: int = 1) -> float | None:
        """Take units, and return None; or, where they are not free, take none and say in how many seconds to come back.

        That goes by the rate at which units were given back of late.
        """
        if self.can_take(units):
            self.in_use += units
            return None
        return self.usage.refusal_s(units, self._rng)

    def give_back(self, units: int = 1) -> None:
        """Give back what was taken."""
        if units > self.in_use:
            raise ValueError(f"{self.in_use} units are in use; {units} cannot be given back")
        self._turn_window()
        self.in_use -= units
        self._released += units

    def _turn_window(self) -> None:
        elapsed_s = self._clock() - self._window_began_at
        if elapsed_s >= _WINDOW_S:
            self._released_before = self._released if elapsed_s < 2 * _WINDOW_S else 0
            self._released = 0
            self._window_began_at += elapsed_s
