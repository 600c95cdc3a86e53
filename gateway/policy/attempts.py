"""The walk of one request from worker to worker, until one of them answers.

A refusal for want of capacity is news, not failure: the request waits for room again, on the same worker or another
one. A failed attempt may be followed by one more on another worker, inside the retry budget; a request that was on two
workers when they failed is given to no third one, for it may be what kills them.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import GatewayError, KvExhaustedError
from gateway.policy.outcomes import Outcome, client_error, judge, kv_exhausted, no_worker_available
from tidegate.rpc.status import RpcError

_MAX_FAILURES = 2
_NOBODY: frozenset[str] = frozenset()  # one for all: an empty set has 216 bytes, and most requests have two


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """An attempt ended with ``outcome``; another worker ``can_move`` on with the job, or not; ``failures`` so far."""

    outcome: Outcome
    can_move: bool
    failures: int

    def is_allowed(self, *, has_budget: bool) -> bool:
        """Whether another worker may be asked. ``has_budget``: the retry budget allows another failure."""
        if self.outcome is Outcome.FAILED and (self.failures >= _MAX_FAILURES or not has_budget):
            return False
        return self.can_move


class Attempts:
    """What has been tried for one request whose client has seen nothing yet."""

    __slots__ = ("_failures", "_last", "_lost", "_refusals", "_retry_after_s", "count", "unfit")

    def __init__(self) -> None:
        self.count = 0
        self.unfit = _NOBODY  # workers that are not to be asked again
        self._lost = _NOBODY  # those among them that may come back as new processes
        self._failures = 0
        self._refusals = 0  # for want of capacity
        self._retry_after_s: float | None = None
        self._last: RpcError | None = None

    def record(self, worker_id: str, error: RpcError) -> None:
        """The attempt on ``worker_id`` ended in ``error``."""
        self.count += 1
        self._last = error
        verdict = judge(error)
        self._failures += verdict.outcome is Outcome.FAILED
        if verdict.error is KvExhaustedError:
            self._refusals += 1
            hints = (self._retry_after_s, error.retry_after_s)
            self._retry_after_s = min((hint for hint in hints if hint is not None), default=None)
        else:
            self.unfit |= {worker_id}
            if verdict.is_lost:
                self._lost |= {worker_id}

    def forgive(self) -> bool:
        """No other worker is left: those that were lost may be asked once they are back. Whether there are any."""
        lost, self._lost = self._lost, _NOBODY
        self.unfit -= lost
        return bool(lost)

    @property
    def retry(self) -> Retry | None:
        """What is to be decided now; None before anything was tried."""
        if self._last is None:
            return None
        verdict = judge(self._last)
        return Retry(outcome=verdict.outcome, can_move=verdict.can_move, failures=self._failures)

    def can_move_on(self, *, has_budget: bool) -> bool:
        """Whether another worker may be asked. ``has_budget``: the retry budget allows another failure."""
        return self.retry is None or self.retry.is_allowed(has_budget=has_budget)

    def error(self) -> GatewayError:
        """What the client is told when no attempt is left."""
        if self._last is None:
            return no_worker_available()
        if self._refusals and judge(self._last).can_move:
            return kv_exhausted(self._retry_after_s, workers_asked=self._refusals)
        return client_error(self._last, tokens_sent=None)
