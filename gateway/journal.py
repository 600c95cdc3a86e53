"""The latest generations and the refusals so far, for people to see: the status page and `tidegate top`.

Names, numbers and reasons; of what was asked and answered, nothing. Bounded, and not in any client's way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

_KEPT = 512
_RECENT_S = 60.0


@dataclass(slots=True, kw_only=True, init=False)
class Entry:
    """How one generation ended, and why."""

    ended_at: float  # by the journal's clock
    response_id: str
    model: str  # empty when it was refused before that was known
    tenant: str
    criticality: str
    outcome: str  # ok, cancelled, or the reason of the error
    explanation: str
    worker: str = ""  # the last one asked
    attempts: int = 0
    continuations: int = 0
    waited_s: float = 0.0
    first_token_s: float | None = None
    duration_s: float = 0.0
    output_tokens: int = 0
    retry_after_s: float | None = None

    def __init__(  # noqa: PLR0913 - its fields
        self,
        *,
        ended_at: float,
        response_id: str,
        model: str,
        tenant: str,
        criticality: str,
        outcome: str,
        explanation: str,
        worker: str = "",
        attempts: int = 0,
        continuations: int = 0,
        waited_s: float = 0.0,
        first_token_s: float | None = None,
        duration_s: float = 0.0,
        output_tokens: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        self.ended_at = ended_at
        self.response_id = response_id
        self.model = model
        self.tenant = tenant
        self.criticality = criticality
        self.outcome = outcome
        self.explanation = explanation
        self.worker = worker
        self.attempts = attempts
        self.continuations = continuations
        self.waited_s = waited_s
        self.first_token_s = first_token_s
        self.duration_s = duration_s
        self.output_tokens = output_tokens
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The refusals of one kind: how many, and the latest of them."""

    count: int
    latest: Entry


class Journal:
    """Keeps the last generations and counts refusals."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        self._refusals: dict[tuple[str, str, str], Refused] = {}

    def note(self, entry: Entry, *, tenant_label: str) -> None:
        """A generation has ended. ``tenant_label`` stands for its tenant in what is kept for ever."""
        self._entries.append(entry)
        if entry.outcome not in ("ok", "cancelled"):
            kind = (tenant_label, entry.criticality, entry.outcome)
            before = self._refusals.get(kind)
            self._refusals[kind] = Refused(count=1 if before is None else before.count + 1, latest=entry)

    @property
    def entries(self) -> Sequence[Entry]:
        """The latest first."""
        return tuple(reversed(tuple(self._entries)))

    @property
    def refusals(self) -> Mapping[tuple[str, str, str], Refused]:
        """By tenant, criticality and reason; since the start."""
        return dict(self._refusals)

    def age_s(self, entry: Entry) -> float:
        """How long ago it ended."""
        return max(0.0, self._clock() - entry.ended_at)

    def first_token_quantiles(self) -> tuple[float, float] | None:
        """The median and the 99th percentile of the last minute's first tokens, in seconds; None without two."""
        since = self._clock() - _RECENT_S
        times = [
            entry.first_token_s
            for entry in tuple(self._entries)
            if entry.ended_at >= since and entry.first_token_s is not None
        ]
        if len(times) < 2:  # noqa: PLR2004 - quantiles need two
            return None
        hundredths = quantiles(times, n=100, method="inclusive")
        return hundredths[49], hundredths[98]
