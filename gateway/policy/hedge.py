"""Whether a request whose first token is overdue is given to a second worker, too ("The Tail at Scale"). Pure.

What explains the delay is left out: a prompt that takes its time, workers that have much to do. What is left is a
worker that hangs, or a host that is busy with something else; and long before that one is found out, another one can
answer. A second prefill is work that nobody needs: only workers with idle room do it, for a small share of requests.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.policy.load import WorkerLoad
from gateway.policy.waiter import CLASS_COUNT

# Ranks below are of requests that a user waits for: CRITICAL_PLUS and CRITICAL.
_INTERACTIVE_RANKS = CLASS_COUNT // 2
# A first token is overdue after so many times what was foreseen, and the lag of all others; but not before this time.
_TIMES, _LEAST_DELAY_S = 2.0, 0.1
# The part of its blocks that are free on a worker with idle room.
_IDLE_SHARE = 0.5
# Hedges that may follow one another at once.
_BURST = 3.0


def delay_s(rank: int, *, predicted_s: float, lag_s: float) -> float | None:
    """How long a request of ``rank`` waits for its first token before it is hedged; None: it never is.

    ``predicted_s`` is what its worker was chosen for, ``lag_s`` how much later first tokens come of late than that.
    """
    if rank >= _INTERACTIVE_RANKS:
        return None
    return max(_LEAST_DELAY_S, _TIMES * (predicted_s + lag_s))


def idle_workers(loads: Mapping[str, WorkerLoad], *, waiting_on: str, prompt_tokens: int) -> frozenset[str]:
    """Those that may be asked, too, for a prompt of ``prompt_tokens`` that the worker ``waiting_on`` has.

    None, unless that one has idle room as well: it has nothing else to prefill, so that what it does not do is no
    matter of load.
    """
    first = loads.get(waiting_on)
    if first is None or not _has_room(first) or first.pending_prefill_tokens > prompt_tokens:
        return frozenset()
    return frozenset(
        worker_id
        for worker_id, load in loads.items()
        if worker_id != waiting_on and _has_room(load) and not load.pending_prefill_tokens
    )


def _has_room(load: WorkerLoad) -> bool:
    return not load.is_draining and load.available_blocks >= _IDLE_SHARE * load.total_blocks


class HedgeBudget:
    """Bounds hedges to a share of the first tokens that came without."""

    def __init__(self, share: float) -> None:
        """``share`` 0 hedges nothing."""
        if not 0 <= share <= 1:
            raise ValueError(f"a share of {share}")
        self._share = share
        self._saved = _BURST if share else 0.0

    @property
    def can_hedge(self) -> bool:
        """Whether there may be one more."""
        return self._saved >= 1

    def hedge(self) -> None:
        """There is one more; ask ``can_hedge`` first."""
        if not self.can_hedge:
            raise ValueError("no hedge is left")
        self._saved -= 1

    def earn(self) -> None:
        """A first token has come."""
        self._saved = min(_BURST, self._saved + self._share) if self._share else 0.0
