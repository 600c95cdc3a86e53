"""How the memory of services grows while they are used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from statistics import linear_regression
from typing import NoReturn

from tests.reliability.services import Service

_INTERVAL_S = 2.0
# Buffers, caches and pools have their size by then.
_WARM_UP_S = 60.0


class MemoryWatch:
    """Samples physical memory; a process that is started anew begins a series of its own."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self._samples: dict[tuple[str, int], list[tuple[float, float]]] = {}

    async def run(self) -> NoReturn:
        """Until cancelled."""
        while True:
            for service in self._services:
                if service.is_running:
                    samples = self._samples.setdefault((service.address, service.pid), [])
                    samples.append((time.monotonic(), service.resident_mib))
            await asyncio.sleep(_INTERVAL_S)

    @property
    def slopes(self) -> Mapping[str, float]:
        """MiB a minute by address and pid, for processes that ran long enough to tell."""
        return {
            f"{address} {pid}": round(60 * slope, 3)
            for (address, pid), samples in self._samples.items()
            if (slope := _slope(samples)) is not None
        }


def _slope(samples: Sequence[tuple[float, float]]) -> float | None:
    began_at = samples[0][0]
    later = [sample for sample in samples if sample[0] - began_at >= _WARM_UP_S]
    if not later or later[-1][0] - later[0][0] < _WARM_UP_S:
        return None
    return linear_regression(*zip(*later, strict=True)).slope
