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
    """A request, by its digest, that was on the worker process ``instance_id`` when that died.

    ``is_silent``: the process said nothing of an engine that died.
    """

    digest: bytes
    instance_id: int
    remaining_s: float  # until it is forgotten
    is_silent: bool


class SuspectBoard:
    """The latest suspicions; each has the end with which it came first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all: dict[tuple[bytes, int], tuple[float, bool]] = {}  # ends, and whether it is silent; oldest first

    def add(self, digest: bytes, instance_id: int, *, remaining_s: float, is_silent: bool = False) -> None:
        """Keep a suspicion, unless it is known; beyond the bound the oldest one goes."""
        key = (digest, instance_id)
        if not 0 < len(digest) <= _MAX_DIGEST_BYTES or remaining_s <= 0 or key in self._all:
            return
        self._all[key] = (self._clock() + min(_MEMORY_S, remaining_s), is_silent)
        while len(self._all) > _MAX_SUSPECTS:
            del self._all[next(iter(self._all))]

    def current(self) -> list[Suspect]:
        """What is not forgotten yet."""
        now = self._clock()
        self._all = {key: kept for key, kept in self._all.items() if kept[0] > now}
        return [
            Suspect(digest=digest, instance_id=instance_id, remaining_s=end - now, is_silent=is_silent)
            for (digest, instance_id), (end, is_silent) in self._all.items()
        ]
