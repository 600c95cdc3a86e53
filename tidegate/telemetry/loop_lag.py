"""How late the event loop is for its timers: the one figure that says a process has more to do than it can."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

_INTERVAL_S = 0.25
_WINDOW = 60  # measurements: 15 seconds


class LoopLag:
    """Measures while ``run`` runs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lags: deque[float] = deque((0.0,), maxlen=_WINDOW)

    @property
    def longest_s(self) -> float:
        """The longest of the last 15 seconds."""
        return max(tuple(self._lags))

    async def run(self) -> NoReturn:
        """Measure until cancelled."""
        while True:
            began_at = self._clock()
            await asyncio.sleep(_INTERVAL_S)
            self._lags.append(max(0.0, self._clock() - began_at - _INTERVAL_S))
