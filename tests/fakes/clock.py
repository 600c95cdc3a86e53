"""Clocks that tests own: one that stands still until it is moved, and those that leap over what nobody waits for."""

from __future__ import annotations

import asyncio
import time


class ManualClock:
    """Time, in seconds, that passes when told to."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class LeapingClock:
    """For the engine of a real worker: its pauses pass on this clock, and take none of the caller's time.

    Otherwise it goes with the monotonic clock of the worker around it, which adds up the engine's steps.
    """

    def __init__(self) -> None:
        self.slept_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.slept_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        await asyncio.sleep(0)


def leap(seconds: float) -> None:
    """Move the running event loop's clock on: what would be due within that time is due now, in its order."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds  # type: ignore[method-assign]
