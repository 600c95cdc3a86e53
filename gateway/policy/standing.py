"""What this gateway thinks of one worker: a breaker for each phase of a job, and the slow start of one that is new.

A job passes three phases: connect (does the worker answer at all), prefill (does the first token come) and decode (does
the stream come to its end). Each has a breaker of its own, since each fails for its own reasons: a worker that answers
promptly may have an engine that dies on every prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from gateway.policy.breaker import Breaker, BreakerLimits, BreakerState, Permit
from gateway.policy.outcomes import Outcome

# A worker that has come new into a fleet at work, or back into it, starts with this weight and has the whole after this
# time: its cache is cold, its rates are not measured, and all gateways see it empty.
_FIRST_WEIGHT = 0.1
_SLOW_START_S = 5.0


class Phase(Enum):
    """A part of a job's life on a worker."""

    __hash__ = object.__hash__  # members are singletons, and Enum's own hash is not in C

    CONNECT = "connect"
    PREFILL = "prefill"
    DECODE = "decode"


# A connection that was lost is lost for all; an engine may fail one request for that request's sake. To see a stream to
# its end may take a minute, so that more of them may try at a time, and one is enough.
LIMITS: Mapping[Phase, BreakerLimits] = MappingProxyType(
    {
        Phase.CONNECT: BreakerLimits(failures=2),
        Phase.PREFILL: BreakerLimits(failures=3),
        Phase.DECODE: BreakerLimits(failures=3, probes=8, successes=1),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A job's permits, one for each phase. A job that was let in though a breaker is open has none."""

    permits: Mapping[Phase, Permit]


_HALF_OPEN: Final = BreakerState.HALF_OPEN
NO_PASS = Pass(permits=MappingProxyType({}))


class Standing:
    """The reputation of one address with this gateway. It outlives a connection, not the gateway."""

    def __init__(self, make_breaker: Callable[[Phase, BreakerLimits], Breaker]) -> None:
        self.breakers = {phase: make_breaker(phase, limits) for phase, limits in LIMITS.items()}
        self._breakers = tuple(self.breakers.values())
        self._joined_at: float | None = None  # into a fleet at work
        self._latest_pass = NO_PASS

    @property
    def is_on_probation(self) -> bool:
        """Whether jobs are let through as probes only."""
        for breaker in self._breakers:  # noqa: SIM110 - as below
            if breaker.state is _HALF_OPEN:
                return True
        return False

    @property
    def states(self) -> dict[Phase, BreakerState]:
        """The breakers' states, for people to see."""
        return {phase: breaker.state for phase, breaker in self.breakers.items()}

    def weight(self, now: float) -> float:
        """The share of its chances that the worker is given, above 0 and at most 1."""
        since = self._joined_at
        for breaker in self._breakers:
            if breaker.closed_at is not None:
                since = breaker.closed_at if since is None else max(since, breaker.closed_at)
        if since is None:
            return 1.0
        return min(1.0, _FIRST_WEIGHT + (1 - _FIRST_WEIGHT) * max(0.0, now - since) / _SLOW_START_S)

    def retry_in_s(self, now: float) -> float:
        """Seconds until an open breaker lets a probe through; 0 when none is open."""
        return max(breaker.retry_in_s(now) for breaker in self.breakers.values())

    def join(self, now: float, *, is_slow: bool) -> None:
        """The worker has proven itself anew. ``is_slow``: others are at work, so that it can be given time."""
        for breaker in self.breakers.values():
            breaker.shake_hands(now)
        self._joined_at = now if is_slow else None

    def can_take(self, now: float) -> bool:
        """Whether all breakers let a job through."""
        for breaker in self._breakers:  # noqa: SIM110 - a generator would take longer than what it asks
            if not breaker.can_take(now):
                return False
        return True

    def take(self, now: float) -> Pass:
        """Let a job through; ask ``can_take`` first."""
        permits = {phase: breaker.take(now) for phase, breaker in self.breakers.items()}
        if permits != self._latest_pass.permits:  # mostly all jobs have the same
            self._latest_pass = Pass(permits=permits)
        return self._latest_pass

    def stall(self, now: float) -> None:
        """The engine stands still. A first token is what proves soonest that it moves again."""
        self.breakers[Phase.PREFILL].stall(now)

    def begin(self, leave: Pass, now: float) -> None:
        """The job's first event has come."""
        self._succeed(Phase.CONNECT, leave, now)
        self._succeed(Phase.PREFILL, leave, now)

    def close(self, leave: Pass, outcome: Outcome, now: float, *, has_begun: bool, is_lost: bool) -> bool:
        """The job has ended; ``is_lost``: with the worker. Returns whether it is a failure that nobody knew of.

        The jobs that die with one worker count until its breaker is open, and no further.
        """
        if outcome is Outcome.FAILED:
            phase = Phase.DECODE if has_begun else Phase.CONNECT if is_lost else Phase.PREFILL
            return self._fail(phase, leave, now, has_begun=has_begun)
        if outcome is Outcome.SUCCESS:
            for phase in Phase if not has_begun else (Phase.DECODE,):
                self._succeed(phase, leave, now)
            return False
        if outcome is Outcome.REFUSED:  # it answered
            self._succeed(Phase.CONNECT, leave, now)
            self._ignore((Phase.PREFILL, Phase.DECODE), leave)
        else:
            self._ignore((Phase.DECODE,) if has_begun else Phase, leave)
        return False

    def _fail(self, phase: Phase, leave: Pass, now: float, *, has_begun: bool) -> bool:
        self._ignore({Phase.DECODE} - {phase} if has_begun else set(Phase) - {phase}, leave)
        permit = leave.permits.get(phase)
        return permit is None or self.breakers[phase].fail(permit, now)

    def _succeed(self, phase: Phase, leave: Pass, now: float) -> None:
        if (permit := leave.permits.get(phase)) is not None:
            self.breakers[phase].succeed(permit, now)

    def _ignore(self, phases: Iterable[Phase], leave: Pass) -> None:
        for phase in phases:
            if (permit := leave.permits.get(phase)) is not None:
                self.breakers[phase].ignore(permit)
