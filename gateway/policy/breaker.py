"""A circuit breaker, as a table of states and events.

Closed, it lets every job through and counts failures in a row. Open, it lets none through until its delay is over;
the delay doubles each time. Half-open, it lets a few through at a time, until enough of them have succeeded.

A job's result counts only while the breaker is in the state that let the job through: what a dead worker's jobs still
have to tell when it is back is no news. docs/breakers.md draws this table.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class BreakerState(Enum):
    """Whether jobs are let through."""

    __hash__ = object.__hash__  # members are singletons, and Enum's own hash is not in C

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerEvent(Enum):
    """What may change the state."""

    __hash__ = object.__hash__  # members are singletons, and Enum's own hash is not in C

    SUCCESS = "a job succeeded"
    PROOF = "enough jobs succeeded"
    FAILURE = "a job failed"
    LIMIT = "too many jobs in a row failed"
    STALL = "the engine stands still"
    DELAY = "the delay is over"
    HANDSHAKE = "the worker has started anew"


_CLOSED, _OPEN, _HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

TRANSITIONS: Mapping[tuple[BreakerState, BreakerEvent], BreakerState] = MappingProxyType(
    {
        (_CLOSED, BreakerEvent.SUCCESS): _CLOSED,
        (_CLOSED, BreakerEvent.PROOF): _CLOSED,
        (_CLOSED, BreakerEvent.FAILURE): _CLOSED,
        (_CLOSED, BreakerEvent.LIMIT): _OPEN,
        (_CLOSED, BreakerEvent.STALL): _OPEN,
        (_CLOSED, BreakerEvent.DELAY): _CLOSED,
        (_CLOSED, BreakerEvent.HANDSHAKE): _CLOSED,
        (_OPEN, BreakerEvent.SUCCESS): _OPEN,
        (_OPEN, BreakerEvent.PROOF): _OPEN,
        (_OPEN, BreakerEvent.FAILURE): _OPEN,
        (_OPEN, BreakerEvent.LIMIT): _OPEN,
        (_OPEN, BreakerEvent.STALL): _OPEN,
        (_OPEN, BreakerEvent.DELAY): _HALF_OPEN,
        (_OPEN, BreakerEvent.HANDSHAKE): _HALF_OPEN,
        (_HALF_OPEN, BreakerEvent.SUCCESS): _HALF_OPEN,
        (_HALF_OPEN, BreakerEvent.PROOF): _CLOSED,
        (_HALF_OPEN, BreakerEvent.FAILURE): _OPEN,
        (_HALF_OPEN, BreakerEvent.LIMIT): _OPEN,
        (_HALF_OPEN, BreakerEvent.STALL): _OPEN,
        (_HALF_OPEN, BreakerEvent.DELAY): _HALF_OPEN,
        (_HALF_OPEN, BreakerEvent.HANDSHAKE): _HALF_OPEN,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerLimits:
    """When a breaker opens, for how long, and how it closes again."""

    failures: int  # in a row, until it opens
    probes: int = 2  # at a time while half-open
    successes: int = 2  # of probes, until it closes
    delay_s: float = 0.5
    max_delay_s: float = 30.0
    forgive_after_s: float = 60.0  # closed for so long, the next delay is the shortest again

    def __post_init__(self) -> None:
        if min(self.failures, self.probes, self.successes) < 1 or not 0 < self.delay_s <= self.max_delay_s:
            raise ValueError(f"limits are at least 1 and delays above 0: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Leave for one job to pass. ``era`` counts the changes of the state before it was given."""

    era: int


class Breaker:
    """One breaker. Times are in seconds of any one clock that does not go back."""

    def __init__(self, limits: BreakerLimits, rng: random.Random) -> None:
        """``rng`` spreads the delays, so that gateways do not all try at once."""
        self.limits = limits
        self.state = BreakerState.CLOSED
        self.opened_count = 0
        self._rng = rng
        self._era = 0
        self._permit = Permit(era=0)  # one for all of an era
        self._failures = 0  # in a row
        self._successes = 0  # while half-open
        self._probes = 0  # under way
        self._trips = 0  # without a long time between
        self.closed_at: float | None = None  # when it last closed, after having been open
        self.retry_at = 0.0  # while it is open

    @property
    def has_failures(self) -> bool:
        """Whether the latest jobs failed."""
        return self._failures > 0

    def retry_in_s(self, now: float) -> float:
        """Seconds until an open breaker lets a probe through; 0 in the other states."""
        return max(0.0, self.retry_at - now) if self.state is BreakerState.OPEN else 0.0

    def can_take(self, now: float) -> bool:
        """Whether a job may pass now."""
        if self.state is BreakerState.OPEN and now >= self.retry_at:
            self._happen(BreakerEvent.DELAY, now)
        if self.state is BreakerState.HALF_OPEN:
            return self._probes < self.limits.probes
        return self.state is BreakerState.CLOSED

    def take(self, now: float) -> Permit:
        """Let a job pass; ask ``can_take`` first. Give the permit back by one of the three methods below."""
        if not self.can_take(now):
            raise ValueError(f"the breaker is {self.state.value}")
        self._probes += self.state is BreakerState.HALF_OPEN
        return self._permit

    def succeed(self, permit: Permit, now: float) -> None:
        """The job came through."""
        if permit.era != self._era:
            return
        self._failures = 0
        if self.state is BreakerState.CLOSED:  # where a success changes nothing
            return
        if self.state is BreakerState.HALF_OPEN:
            self._probes -= 1
            self._successes += 1
        is_proof = self._successes >= self.limits.successes
        self._happen(BreakerEvent.PROOF if is_proof else BreakerEvent.SUCCESS, now)

    def fail(self, permit: Permit, now: float) -> bool:
        """The job failed. Returns whether that is news: of a job that the breaker would have let pass today."""
        if permit.era != self._era:
            return False
        self._failures += 1
        self._happen(BreakerEvent.LIMIT if self._failures >= self.limits.failures else BreakerEvent.FAILURE, now)
        return True

    def ignore(self, permit: Permit) -> None:
        """The job ended in a way that says nothing of the worker."""
        if permit.era == self._era and self.state is BreakerState.HALF_OPEN:
            self._probes -= 1

    def stall(self, now: float) -> None:
        """The engine has made no step for longer than its work explains."""
        self._happen(BreakerEvent.STALL, now)

    def shake_hands(self, now: float) -> None:
        """The worker has started anew, and proven itself fit as far as that can be done without a job."""
        self._happen(BreakerEvent.HANDSHAKE, now)

    def _happen(self, event: BreakerEvent, now: float) -> None:
        before, self.state = self.state, TRANSITIONS[self.state, event]
        if self.state is before:
            return
        self._era += 1
        self._permit = Permit(era=self._era)
        self._failures = self._successes = self._probes = 0
        if self.state is BreakerState.CLOSED:
            self.closed_at = now
        elif self.state is BreakerState.OPEN:
            self._open(before, now)

    def _open(self, before: BreakerState, now: float) -> None:
        was_closed_s = now - self.closed_at if self.closed_at is not None else 0.0
        if before is BreakerState.CLOSED and was_closed_s >= self.limits.forgive_after_s:
            self._trips = 0
        delay_s = min(self.limits.max_delay_s, self.limits.delay_s * 2.0**self._trips)
        self._trips = min(self._trips + 1, 30)
        self.opened_count += 1
        self.retry_at = now + delay_s * self._rng.uniform(0.8, 1.2)
