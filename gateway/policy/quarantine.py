"""Keeps a request from walking through the fleet that kills the engines it runs on (docs/adr/0014).

Every job that was on a worker when it died is a suspect of that death. A request that is a suspect of two deaths is
refused until the older one is forgotten. Suspicions are facts that only grow, each with its own end: gateways pass them
on by way of the workers, in any order and any number of times, and come to the same view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# For so long a death is remembered, in seconds: long enough to outlast a client's retries.
MEMORY_S = 600.0
_DEATHS = 2
# A process that is dead reports no more, apart from what was on its way.
_LAST_REPORTS_S = 0.25
# The oldest suspicions are forgotten beyond this number.
_MAX_SUSPECTS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A request, by its digest, that was on the worker process ``instance_id`` when that died."""

    digest: bytes
    instance_id: int
    remaining_s: float  # until it is forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A request is refused: it was at so many ``deaths``. It may be tried again after ``remaining_s``."""

    deaths: int
    remaining_s: float


class Quarantine:
    """What one gateway knows. Times are in seconds of any one clock that does not go back."""

    def __init__(self) -> None:
        self._ends: dict[tuple[bytes, int], float] = {}  # oldest first
        self._by_digest: dict[bytes, set[int]] = {}
        self._cleared_at: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, suspects: Iterable[Suspect], now: float) -> bool:
        """Take in suspicions; returns whether one of them was new."""
        is_news = False
        for suspect in suspects:
            key = (suspect.digest, suspect.instance_id)
            # What is known keeps its end: passed on for ever, it would else never be forgotten.
            if key not in self._ends and suspect.remaining_s > 0:
                self._ends[key] = now + min(MEMORY_S, suspect.remaining_s)
                self._by_digest.setdefault(suspect.digest, set()).add(suspect.instance_id)
                is_news = True
        while len(self._ends) > _MAX_SUSPECTS:
            self._remove(next(iter(self._ends)))
        return is_news

    def clear(self, digest: bytes, now: float) -> None:
        """The request has come to a good end. Whatever died before, died of something else."""
        if digest in self._by_digest:
            self._cleared_at[digest] = now

    def suspects(self, now: float) -> list[Suspect]:
        """All suspicions that hold, for others."""
        self._forget(now)
        return [
            Suspect(digest=digest, instance_id=instance_id, remaining_s=min(MEMORY_S, end - now))
            for (digest, instance_id), end in self._ends.items()
            if end - MEMORY_S > self._cleared_at.get(digest, float("-inf"))
        ]

    def sentence(self, digest: bytes, last_reports: Mapping[int, float], now: float) -> Sentence | None:
        """Whether the request is refused. ``last_reports``: when each worker process in rotation last reported.

        A worker that reports after its death was only out of reach.
        """
        ends: list[float] = []
        for instance_id in self._by_digest.get(digest, ()):
            end = self._ends[digest, instance_id]
            died_at = end - MEMORY_S
            is_alive = last_reports.get(instance_id, float("-inf")) > died_at + _LAST_REPORTS_S
            if end > now and not is_alive and died_at > self._cleared_at.get(digest, float("-inf")):
                ends.append(end)
        if len(ends) < _DEATHS:
            return None
        ends.sort(reverse=True)
        return Sentence(deaths=len(ends), remaining_s=ends[_DEATHS - 1] - now)

    def _forget(self, now: float) -> None:
        for key in [key for key, end in self._ends.items() if end <= now]:
            self._remove(key)

    def _remove(self, key: tuple[bytes, int]) -> None:
        digest, instance_id = key
        del self._ends[key]
        self._by_digest[digest].discard(instance_id)
        if not self._by_digest[digest]:
            del self._by_digest[digest]
            self._cleared_at.pop(digest, None)
