"""What gateways suspect of having killed a worker, kept for other gateways to read (docs/adr/0014). Pure.

A worker makes nothing of it. It is the place where gateways that do not know one another leave word.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_MEMORY_S = 600.0
_MAX_SUSPECTS = 64  # they stand in every report
_MAX_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A request, by its digest, that was on the worker process ``instance_id`` when that died."""

    digest: bytes
    instance_id: int
    remaining_s: float  # until it is forgotten


class SuspectBoard:
    """The latest suspicions; each has the end with which it came first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: dict[tuple[bytes, int], float] = {}  # oldest first

    def add(self, digest: bytes, instance_id: int, *, remaining_s: float) -> None:
        """Keep a suspicion, unless it is known; beyond the bound the oldest one goes."""
        key = (digest, instance_id)
        if not 0 < len(digest) <= _MAX_DIGEST_BYTES or remaining_s <= 0 or key in self._ends:
            return
        self._ends[key] = self._clock() + min(_MEMORY_S, remaining_s)
        while len(self._ends) > _MAX_SUSPECTS:
            del self._ends[next(iter(self._ends))]

    def current(self) -> list[Suspect]:
        """What is not forgotten yet."""
        now = self._clock()
        self._ends = {key: end for key, end in self._ends.items() if end > now}
        return [
            Suspect(digest=digest, instance_id=instance_id, remaining_s=end - now)
            for (digest, instance_id), end in self._ends.items()
        ]
