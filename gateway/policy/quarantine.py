"""Keeps a request from walking through the fleet that kills the engines it runs on (docs/adr/0014).

Every job that was on a worker when it died is a suspect of that death. How much a death says against a request depends
on two things: whether the worker said that its engine died, or went without a word, as those do that are killed from
outside; and whether the request had a token from it, or has had one from another worker since. What kills an engine
kills the next one at the same place, and gets no token there. Deaths that say enough together are a sentence.

Suspicions are facts that only grow, each with its own end: gateways pass them on by way of the workers, in any order
and any number of times, and come to the same view. Faint ones, of requests that had tokens, are as many as a worker had
streams. They stay here until they have led to a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.policy.suspicions import Suspicion, Suspicions

# For so long a death is remembered, in seconds: long enough to outlast a client's retries.
MEMORY_S = 600.0
# How much a death says, by (is_silent, is_faint), and how much is a sentence. So these are one: an engine that died
# before a token, and any other death; three engines that died behind tokens; three workers that went without a word,
# two of them before a token; six that did so behind tokens, which is as many as a stream may lose.
_SENTENCE = 24
_SAYS: Mapping[tuple[bool, bool], int] = MappingProxyType(
    {(False, False): 20, (False, True): 8, (True, False): 10, (True, True): 4}
)
# A process that is dead reports no more, apart from what was on its way.
_LAST_REPORTS_S = 0.25
# The oldest suspicions are forgotten beyond this number; faint ones are as many as a gateway has streams.
_MAX_SUSPECTS, _MAX_FAINT = 1024, 4096
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A request, by its digest, that was on the worker process ``instance_id`` when that died.

    ``is_silent``: the process said nothing of an engine that died. ``is_faint``: the request had tokens from it, or the
    process may be alive.
    """

    digest: bytes
    instance_id: int
    remaining_s: float  # until it is forgotten
    is_silent: bool = False
    is_faint: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A request is refused: it was at so many ``deaths``. It may be tried again after ``remaining_s``."""

    deaths: int
    remaining_s: float


class Quarantine:
    """What one gateway knows. Times are in seconds of any one clock that does not go back."""

    def __init__(self) -> None:
        self._strong = Suspicions(_MAX_SUSPECTS)
        self._faint = Suspicions(_MAX_FAINT)
        self._cleared_at: dict[bytes, float] = {}
        self._passed_at: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._strong) + len(self._faint)

    def __bool__(self) -> bool:
        """Whether any request is suspected."""
        return bool(self._strong or self._faint)

    def __contains__(self, digest: bytes) -> bool:
        """Whether anything is suspected of the request."""
        return self._strong.suspects(digest) or self._faint.suspects(digest)

    def add(self, suspects: Iterable[Suspect], now: float) -> bool:
        """Take in suspicions; returns whether one of them is news for others."""
        is_news = False
        for suspect in suspects:
            if suspect.remaining_s > 0:
                suspicion = Suspicion(end=now + min(MEMORY_S, suspect.remaining_s), is_silent=suspect.is_silent)
                kept = self._faint if suspect.is_faint else self._strong
                is_new = kept.add(suspect.digest, suspect.instance_id, suspicion)
                is_news = is_news or (is_new and (not suspect.is_faint or self._convicts(suspect.digest, now)))
        return is_news

    def clear(self, digest: bytes, now: float) -> None:
        """The request has come to a good end. Whatever died before, died of something else."""
        if digest in self:
            self._cleared_at[digest] = now

    def pass_over(self, digest: bytes, now: float) -> None:
        """The request has had a token. At the place where workers died before, one did not: those say less now."""
        if digest in self:
            self._passed_at[digest] = now

    def suspects(self, now: float) -> list[Suspect]:
        """All suspicions that hold, for others: the faint ones only where they have led to a sentence.

        To others those are as good as any: were they not enough, nobody would be told.
        """
        self._forget(now)
        return [
            Suspect(
                digest=digest,
                instance_id=instance_id,
                remaining_s=min(MEMORY_S, suspicion.end - now),
                is_silent=suspicion.is_silent,
            )
            for digest, instance_id, suspicion in (*self._strong, *self._convicted(now))
            if self._holds(digest, suspicion)
        ]

    def sentence(self, digest: bytes, last_reports: Mapping[int, float], now: float) -> Sentence | None:
        """Whether the request is refused. ``last_reports``: when each worker process in rotation last reported.

        A worker that reports after its death was only out of reach.
        """
        if digest not in self:
            return None
        deaths = sorted(
            (
                (suspicion, is_faint)
                for instance_id, (suspicion, is_faint) in self._of(digest).items()
                if suspicion.end > now
                and self._holds(digest, suspicion)
                and last_reports.get(instance_id, _NEVER) <= _died_at(suspicion) + _LAST_REPORTS_S
            ),
            key=lambda death: -death[0].end,
        )
        said = 0
        for suspicion, is_faint in deaths:
            is_passed = _died_at(suspicion) < self._passed_at.get(digest, _NEVER)
            said += _SAYS[suspicion.is_silent, is_faint or is_passed]
            if said >= _SENTENCE:
                return Sentence(deaths=len(deaths), remaining_s=suspicion.end - now)
        return None

    def _of(self, digest: bytes) -> dict[int, tuple[Suspicion, bool]]:
        """A request's suspicions by process, and whether they are faint."""
        found = {instance_id: (suspicion, True) for instance_id, suspicion in self._faint.of(digest).items()}
        return found | {instance_id: (suspicion, False) for instance_id, suspicion in self._strong.of(digest).items()}

    def _holds(self, digest: bytes, suspicion: Suspicion) -> bool:
        """Whether the request has come to no good end since the death."""
        return _died_at(suspicion) > self._cleared_at.get(digest, _NEVER)

    def _convicted(self, now: float) -> Iterator[tuple[bytes, int, Suspicion]]:
        """The faint suspicions of requests that are refused, which say all that they need to."""
        for digest, instance_id, suspicion in self._faint:
            if (digest, instance_id) not in self._strong and self._convicts(digest, now):
                yield digest, instance_id, Suspicion(end=suspicion.end, is_silent=False)

    def _convicts(self, digest: bytes, now: float) -> bool:
        is_known_for_more = len(self._strong.of(digest)) + len(self._faint.of(digest)) > 1
        return is_known_for_more and self.sentence(digest, {}, now) is not None

    def _forget(self, now: float) -> None:
        self._strong.forget(now)
        self._faint.forget(now)
        self._cleared_at = {digest: at for digest, at in self._cleared_at.items() if digest in self}
        self._passed_at = {digest: at for digest, at in self._passed_at.items() if digest in self}


def _died_at(suspicion: Suspicion) -> float:
    return suspicion.end - MEMORY_S
