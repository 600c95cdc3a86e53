"""Keeps a request from walking through the fleet that kills the engines it runs on (docs/adr/0014).

Every job that was on a worker when it died is a suspect of that death. A request that is a suspect of two deaths is
refused until the older one is forgotten. Suspicions are facts that only grow, each with its own end: gateways pass them
on by way of the workers, in any order and any number of times, and come to the same view.

A worker that is gone without a word, in the middle of a job's tokens, was most likely killed from outside, with all of
its streams. Such a suspicion is faint: it takes three more of them, or one of the other kind. Streams are many and
faint suspicions with them, so that they stay here until they have led to a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.policy.suspicions import Suspicions

# For so long a death is remembered, in seconds: long enough to outlast a client's retries.
MEMORY_S = 600.0
_DEATHS = 2
_FAINT_DEATHS = 4  # as many as a stream may lose workers, by default
# A process that is dead reports no more, apart from what was on its way.
_LAST_REPORTS_S = 0.25
# The oldest suspicions are forgotten beyond this number; faint ones are as many as a gateway has streams.
_MAX_SUSPECTS, _MAX_FAINT = 1024, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A request, by its digest, that was on the worker process ``instance_id`` when that died.

    ``is_faint``: in the middle of its tokens, or the worker only fell silent; it said nothing of an engine that died.
    """

    digest: bytes
    instance_id: int
    remaining_s: float  # until it is forgotten
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

    def __len__(self) -> int:
        return len(self._strong) + len(self._faint)

    def __contains__(self, digest: bytes) -> bool:
        """Whether anything is suspected of the request."""
        return bool(self._strong.of(digest) or self._faint.of(digest))

    def add(self, suspects: Iterable[Suspect], now: float) -> bool:
        """Take in suspicions; returns whether one of them is news for others."""
        is_news = False
        for suspect in suspects:
            if suspect.remaining_s > 0:
                end = now + min(MEMORY_S, suspect.remaining_s)
                is_new = (self._faint if suspect.is_faint else self._strong).add(
                    suspect.digest, suspect.instance_id, end
                )
                is_news = is_news or (is_new and (not suspect.is_faint or self._convicts(suspect.digest, now)))
        return is_news

    def clear(self, digest: bytes, now: float) -> None:
        """The request has come to a good end. Whatever died before, died of something else."""
        if digest in self:
            self._cleared_at[digest] = now

    def suspects(self, now: float) -> list[Suspect]:
        """All suspicions that hold, for others: the faint ones only where they have led to a sentence.

        To others those are as good as any: were they not enough, nobody would be told.
        """
        self._forget(now)
        told = list(self._strong)
        told += [one for one in self._faint if self._convicts(one[0], now) and one[:2] not in self._strong]
        return [
            Suspect(digest=digest, instance_id=instance_id, remaining_s=min(MEMORY_S, end - now))
            for digest, instance_id, end in told
            if self._holds(digest, end)
        ]

    def sentence(self, digest: bytes, last_reports: Mapping[int, float], now: float) -> Sentence | None:
        """Whether the request is refused. ``last_reports``: when each worker process in rotation last reported.

        A worker that reports after its death was only out of reach.
        """
        if digest not in self:
            return None
        strong, faint = self._strong.of(digest), self._faint.of(digest)
        ends = {
            instance_id: end
            for instance_id, end in {**faint, **strong}.items()
            if end > now
            and self._holds(digest, end)
            and last_reports.get(instance_id, float("-inf")) <= end - MEMORY_S + _LAST_REPORTS_S
        }
        latest_strong = max((ends[instance_id] for instance_id in strong if instance_id in ends), default=None)
        needed = _FAINT_DEATHS if latest_strong is None else _DEATHS
        if len(ends) < needed:
            return None
        until = min(
            sorted(ends.values(), reverse=True)[needed - 1], float("inf") if latest_strong is None else latest_strong
        )
        return Sentence(deaths=len(ends), remaining_s=until - now)

    def _holds(self, digest: bytes, end: float) -> bool:
        """Whether the request has come to no good end since the death that is forgotten at ``end``."""
        return end - MEMORY_S > self._cleared_at.get(digest, float("-inf"))

    def _convicts(self, digest: bytes, now: float) -> bool:
        is_known_for_more = len(self._strong.of(digest)) + len(self._faint.of(digest)) >= _DEATHS
        return is_known_for_more and self.sentence(digest, {}, now) is not None

    def _forget(self, now: float) -> None:
        self._strong.forget(now)
        self._faint.forget(now)
        self._cleared_at = {digest: at for digest, at in self._cleared_at.items() if digest in self}
