"""Which requests were on which workers when these died, and until when that is remembered. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

_NONE: Mapping[int, float] = MappingProxyType({})


class Suspicions:
    """Suspicions of one kind."""

    def __init__(self, most: int) -> None:
        """Beyond ``most`` the oldest are forgotten."""
        self._most = most
        self._ends: dict[tuple[bytes, int], float] = {}  # oldest first
        self._by_digest: dict[bytes, dict[int, float]] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def __contains__(self, key: tuple[bytes, int]) -> bool:
        return key in self._ends

    def __iter__(self) -> Iterator[tuple[bytes, int, float]]:
        return ((digest, instance_id, end) for (digest, instance_id), end in self._ends.items())

    def of(self, digest: bytes) -> Mapping[int, float]:
        """The ends of a request's suspicions, by process."""
        return self._by_digest.get(digest, _NONE)

    def add(self, digest: bytes, instance_id: int, end: float) -> bool:
        """Keep one; returns whether it was new. Passed on for ever, it would else never be forgotten."""
        if (digest, instance_id) in self._ends:
            return False
        self._ends[digest, instance_id] = end
        self._by_digest.setdefault(digest, {})[instance_id] = end
        if len(self._ends) > self._most:
            self._remove(next(iter(self._ends)))
        return True

    def forget(self, now: float) -> None:
        """Remove those that have come to their end."""
        for key in [key for key, end in self._ends.items() if end <= now]:
            self._remove(key)

    def _remove(self, key: tuple[bytes, int]) -> None:
        digest, instance_id = key
        del self._ends[key]
        of_digest = self._by_digest[digest]
        del of_digest[instance_id]
        if not of_digest:
            del self._by_digest[digest]
