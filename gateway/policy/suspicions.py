"""Which requests were on which workers when these died, and until when that is remembered. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Of one request and one process; ``is_silent``: the process went without a word."""

    end: float  # when it is forgotten
    is_silent: bool


_NONE: Mapping[int, Suspicion] = MappingProxyType({})


class Suspicions:
    """Those that are as strong, and kept up to one bound."""

    def __init__(self, most: int) -> None:
        """Beyond ``most`` the oldest are forgotten."""
        self._most = most
        self._all: dict[tuple[bytes, int], Suspicion] = {}  # oldest first
        self._by_digest: dict[bytes, dict[int, Suspicion]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._all)

    def __contains__(self, key: tuple[bytes, int]) -> bool:
        return key in self._all

    def __iter__(self) -> Iterator[tuple[bytes, int, Suspicion]]:
        return ((digest, instance_id, suspicion) for (digest, instance_id), suspicion in self._all.items())

    def suspects(self, digest: bytes) -> bool:
        """Whether anything is suspected of a request."""
        return digest in self._by_digest

    def of(self, digest: bytes) -> Mapping[int, Suspicion]:
        """A request's, by process."""
        return self._by_digest.get(digest, _NONE)

    def add(self, digest: bytes, instance_id: int, suspicion: Suspicion) -> bool:
        """Keep one; returns whether it was new. Passed on for ever, it would else never be forgotten."""
        if (digest, instance_id) in self._all:
            return False
        self._all[digest, instance_id] = suspicion
        self._by_digest.setdefault(digest, {})[instance_id] = suspicion
        if len(self._all) > self._most:
            self._remove(next(iter(self._all)))
        return True

    def forget(self, now: float) -> None:
        """Remove those that have come to their end."""
        for key in [key for key, suspicion in self._all.items() if suspicion.end <= now]:
            self._remove(key)

    def _remove(self, key: tuple[bytes, int]) -> None:
        digest, instance_id = key
        del self._all[key]
        of_digest = self._by_digest[digest]
        del of_digest[instance_id]
        if not of_digest:
            del self._by_digest[digest]
