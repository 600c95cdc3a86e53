"""A second worker for a request whose first token is overdue. Whichever answers first goes on; the other one is left.

``policy/hedge.py`` decides. The client is sent nothing before the race is decided, and from then on has one source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.call import Call
from gateway.criticality import rank_of
from gateway.errors import DeadlineTooShortError
from gateway.jobs import PreparedRequest
from gateway.passage import Passage
from gateway.policy.hedge import HedgeBudget, delay_s, idle_workers
from gateway.policy.outcomes import Outcome, judge
from gateway.records import Record
from gateway.spans import AttemptSpan
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Lease
from tidegate.rpc.status import RpcError


class Scout(Protocol):
    """A call to a worker whose answer the client is not sent yet."""

    def cancel(self) -> None:
        """End it; a no-op once it has ended."""


class ScoutListener(Protocol):
    """Who sent it."""

    def on_answer(self) -> None:
        """Its first message has come."""

    def on_failure(self, error: RpcError) -> None:
        """It has ended before that."""


class Sender(Protocol):
    """What can have two calls to workers at a time."""

    def scout(
        self,
        lease: Lease,
        job: bytes,
        listener: ScoutListener,
        *,
        timeout_s: float,
        metadata: tuple[tuple[str, str], ...],
    ) -> Scout | None:
        """Start a second call, with ``lease``; None where that cannot be done at once."""

    def drop(self) -> None:
        """Send nothing more of the call that is being carried."""


@dataclass(slots=True, kw_only=True, init=False)
class Hedged:
    """A request, as far as hedging needs it."""

    prepared: PreparedRequest
    call: Call
    sender: Sender
    record: Record

    def __init__(self, *, prepared: PreparedRequest, call: Call, sender: Sender, record: Record) -> None:
        self.prepared = prepared
        self.call = call
        self.sender = sender
        self.record = record


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """The second attempt, once it has won."""

    lease: Lease
    span: AttemptSpan
    scout: Scout


class Hedging:
    """Watches over requests that wait for their first token. Make it inside a running event loop."""

    def __init__(self, fleet: Fleet, *, share: float, is_anybody_waiting: Callable[[], bool]) -> None:
        """``share`` of the first tokens may be hedged, as long as nobody waits for a worker."""
        self.loop = asyncio.get_running_loop()
        self.fleet = fleet
        self.budget = HedgeBudget(share)
        self.is_anybody_waiting = is_anybody_waiting
        self.is_on = share > 0

    def watch(self, hedged: Hedged, lease: Lease, *, lag_s: float) -> Hedge | None:
        """Hedge a first attempt, with ``lease``, when it is time; ``close`` what is returned when that has ended."""
        rank = rank_of(hedged.prepared.request.criticality)
        after_s = delay_s(rank, predicted_s=lease.predicted_ttft_s, lag_s=lag_s)
        return None if after_s is None else Hedge(self, hedged, lease, after_s=after_s)


class Hedge:
    """One request's."""

    __slots__ = ("_has_won", "_hedged", "_hedging", "_lease", "_second", "_timer")

    def __init__(self, hedging: Hedging, hedged: Hedged, lease: Lease, *, after_s: float) -> None:
        """Use ``Hedging.watch``."""
        self._has_won = False
        self._hedging = hedging
        self._hedged = hedged
        self._lease = lease
        self._second: Second | None = None
        self._timer: asyncio.TimerHandle | None = hedging.loop.call_later(after_s, self._fire)

    def first_token(self) -> None:
        """It has come, from either one."""
        self._hedging.budget.earn()
        self.close()

    def take(self) -> Second | None:
        """The second attempt, if it has won: from here on the caller's."""
        if not self._has_won:
            return None
        second, self._second = self._second, None
        return second

    def close(self) -> None:
        """The attempt that was hedged has ended, or has begun. Leaves the second one, unless that was taken."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._second is not None:
            second, self._second = self._second, None
            second.scout.cancel()
            self._end(second.lease, second.span, Outcome.IGNORED, None)

    # ScoutListener.

    def on_answer(self) -> None:
        """The second one has won: nothing more of the first gets to the client."""
        self._has_won = True
        self._hedged.sender.drop()
        self._lease.call.give_up()

    def on_failure(self, error: RpcError) -> None:
        """The first one goes on alone."""
        second, self._second = self._second, None
        if second is not None:
            self._end(second.lease, second.span, judge(error).outcome, error)

    def _fire(self) -> None:
        self._timer = None
        hedged, lease = self._hedged, self._second_lease()
        if lease is None:
            return
        try:
            budget = hedged.prepared.budget(lease.load, remaining_s=hedged.call.remaining_s)
        except DeadlineTooShortError:
            lease.close(Outcome.IGNORED)
            return
        span = hedged.record.attempt(lease)
        job = hedged.prepared.job(budget)
        scout = hedged.sender.scout(lease, job, self, timeout_s=hedged.call.remaining_s, metadata=span.metadata)
        if scout is None:
            self._end(lease, span, Outcome.IGNORED, None)
            return
        self._hedging.budget.hedge()
        self._second = Second(lease=lease, span=span, scout=scout)

    def _second_lease(self) -> Lease | None:
        hedging, prepared = self._hedging, self._hedged.prepared
        model, demand = prepared.request.model, prepared.demand
        if not hedging.budget.can_hedge or hedging.is_anybody_waiting() or demand.digest in hedging.fleet.quarantine:
            return None
        loads = {seat.worker_id: seat.load for seat in hedging.fleet.seats_for(model)}
        idle = idle_workers(loads, waiting_on=self._lease.worker_id, prompt_tokens=demand.prompt_tokens)
        return hedging.fleet.lease(model, demand, exclude=loads.keys() - idle) if idle else None

    def _end(self, lease: Lease, span: AttemptSpan, outcome: Outcome, error: RpcError | None) -> None:
        is_lost = error is not None and judge(error).is_lost
        lease.close(outcome, is_lost=is_lost, reason="" if error is None else error.reason)
        span.end(outcome, Passage(), error)
        self._hedged.record.attempted(lease, outcome, error)
