"""Runs a prepared request on a worker and has its messages carried to the client.

As long as the client has seen nothing, another worker may begin anew (docs/adr/0004); from the first event on, another
one can only go on where the stream broke off (docs/adr/0011). How messages are carried is the data plane's business;
that there is one, is not known here.
"""

from __future__ import annotations

import random
from collections.abc import Coroutine
from functools import partial
from typing import Protocol

from gateway.call import Call
from gateway.continuing import Continuing
from gateway.errors import DeadlineExceededError
from gateway.hedging import Hedge, Hedged, Hedging, Second, Sender
from gateway.jobs import Delivered, PreparedRequest
from gateway.passage import Passage
from gateway.place import Place
from gateway.policy.attempts import Attempts
from gateway.policy.continuation import Continuation, ContinuationLimits
from gateway.policy.outcomes import Outcome, judge
from gateway.records import Record
from gateway.retries import AnotherAttempt, attempt_again
from gateway.waiting_room import WaitingRoom
from gateway.workers.errors import WorkerCallError
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Lease
from tidegate.telemetry import conventions as names


class Carrier(Sender, Protocol):
    """The way of one call's messages from a worker to its client."""

    async def carry(
        self, lease: Lease, job: bytes, passage: Passage, *, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """Run ``job``, a serialised worker's request, and send the client what ``passage`` makes of the messages.

        A job that the latest ``scout`` has under way with this lease is not started again, but gone on with. Returns
        when the worker has ended the call with OK. The worker's call ends with this one, however it ends. Raises
        ``WorkerCallError``.
        """


class Dispatch:
    """Finds a worker for each request, and another one while that is possible."""

    def __init__(
        self,
        waiting_room: WaitingRoom,
        fleet: Fleet,
        limits: ContinuationLimits,
        rng: random.Random,
        *,
        hedging: Hedging,
    ) -> None:
        """``limits`` hold for going on after the first event."""
        self._hedging = hedging
        self._waiting_room = waiting_room
        self._fleet = fleet
        self._begin_course = partial(Continuation, limits, rng)

    def generate(
        self, prepared: PreparedRequest, call: Call, carrier: Carrier, record: Record
    ) -> Coroutine[None, None, None]:
        """Carry the generation to the client. Being cancelled frees the request's blocks on its worker.

        Raises the ``GatewayError`` that the client is told.
        """
        passage = Passage()
        if prepared.resumed is not None:
            passage.resume(prepared.resumed.token_ids, prepared.resumed.text_bytes)
        continuing = Continuing(self._fleet, self._begin_course, prepared, call, passage)
        run = _Run(record, prepared, call, carrier, passage, hedging=self._hedging)
        return run.to_end(self._waiting_room.place(prepared, call), continuing)


class _Run:
    """One request, from its first attempt to its last."""

    __slots__ = ("_attempts", "_call", "_carrier", "_hedging", "_passage", "_prepared", "_record")

    def __init__(  # noqa: PLR0913 - a request with all that an attempt needs
        self,
        record: Record,
        prepared: PreparedRequest,
        call: Call,
        carrier: Carrier,
        passage: Passage,
        *,
        hedging: Hedging,
    ) -> None:
        self._record = record
        self._hedging = hedging
        self._prepared = prepared
        self._call = call
        self._carrier = carrier
        self._attempts = Attempts()
        self._passage = passage
        record.prepared(prepared, passage)

    async def to_end(self, place: Place, continuing: Continuing) -> None:
        try:
            another = await self._attempt_next(place, continuing)
            if another is not None:
                await attempt_again(another, partial(self._attempt_next, place, continuing))
        finally:
            place.end(self._passage.finished, output_tokens=self._passage.tokens)

    async def _attempt_next(self, place: Place, continuing: Continuing) -> AnotherAttempt | None:
        """The next attempt; returns whether another one may follow. Raises what the client is told.

        An error is not passed on from here: it holds all that its attempt has made.
        """
        passage = self._passage
        lease: Lease | None = None
        if passage.has_begun:
            lease = await self._lease_to_go_on(continuing)
            place.go_on(lease)
        else:
            with self._record.stage(names.QUEUE):
                if not self._attempts.count:
                    lease = place.lease_at_once()
                if lease is None:
                    lease = await self._lease_to_begin(place)
        if lease is None:
            raise self._attempts.error()
        try:
            second = await self._attempt(lease, continuing.delivered, place)
            if second is not None:
                lease = second.lease
                place.go_on(lease)
                await self._attempt(lease, None, place, second=second)
        except WorkerCallError as failure:
            if passage.is_complete:  # only the news of its good end was lost
                return None
            if passage.has_begun:
                continuing.lose(lease, failure)
                return AnotherAttempt(has_failed=False)
            self._move_on(place, lease, failure)
            return AnotherAttempt(
                has_failed=judge(failure.error).outcome is Outcome.FAILED, is_suspect=lease.is_suspect
            )
        return None

    async def _lease_to_begin(self, place: Place) -> Lease | None:
        record = self._record
        record.begin_wait()
        try:
            lease = await place.lease(exclude=self._attempts.unfit)
            if lease is None and self._attempts.forgive():
                lease = await place.lease(exclude=self._attempts.unfit)
        finally:
            record.end_wait()
        return lease

    async def _lease_to_go_on(self, continuing: Continuing) -> Lease:
        with self._record.stage(names.CONTINUATION):
            return await continuing.lease()

    def _move_on(self, place: Place, lease: Lease, failure: WorkerCallError) -> None:
        """Another worker may begin anew; otherwise raises what the client is told."""
        self._attempts.record(lease.worker_id, failure.error)
        if not place.can_move_on(self._attempts):
            raise self._attempts.error() from failure
        place.fail(failure.error)

    async def _attempt(
        self, lease: Lease, delivered: Delivered | None, place: Place, *, second: Second | None = None
    ) -> Second | None:
        """One call to one worker. However it ends, the call, the lease and the span end with it.

        ``second`` is the same job on another worker that was asked while this one waited, and has answered; returns it
        where it is to go on in place of this one.
        """
        passage, remaining_s = self._passage, self._call.left_s(self._hedging.loop.time())
        tokens = passage.tokens
        span = self._record.attempt(lease, delivered_tokens=tokens) if second is None else second.span
        hedge = self._hedge(lease, place) if second is None and delivered is None else None
        passage.expect(lambda: self._begin(lease, hedge))
        outcome, error = Outcome.IGNORED, None  # unless it ends by itself, the client is gone
        try:
            if not remaining_s:
                raise DeadlineExceededError("the deadline passed before a worker was asked")
            with lease:
                await self._carrier.carry(
                    lease,
                    self._job(lease, delivered, place, remaining_s=remaining_s) if second is None else b"",
                    passage,
                    timeout_s=remaining_s,
                    metadata=span.metadata,
                )
            passage.end()
            outcome = Outcome.SUCCESS
        except WorkerCallError as failure:
            if hedge is not None and (winner := hedge.take()) is not None:
                return winner
            error = failure.error
            outcome = judge(error).outcome
            raise
        finally:
            if hedge is not None:
                hedge.close()
            if second is not None:
                second.scout.cancel()
            lease.close(
                outcome,
                is_lost=error is not None and judge(error).is_lost,
                reason="" if error is None else error.reason,
                output_tokens=passage.tokens - tokens,
                cached_tokens=passage.cached_tokens,
            )
            span.end(outcome, passage, error)
            self._record.attempted(lease, outcome, error)
        return None

    def _job(self, lease: Lease, delivered: Delivered | None, place: Place, *, remaining_s: float) -> bytes:
        """What the worker is asked, serialised."""
        prepared, tokens = self._prepared, self._passage.tokens
        budget = prepared.budget(
            lease.load,
            remaining_s=max(0.0, remaining_s - place.lag_s),  # the rest goes by without a token
            delivered_tokens=tokens,
            on_decision=place.on_decision,
        )
        return prepared.job(budget, place.queue, delivered)

    def _hedge(self, lease: Lease, place: Place) -> Hedge | None:
        """Of a first attempt; who has been to a worker in vain has reason to be late."""
        if self._attempts.count or not self._hedging.is_on:
            return None
        hedged = Hedged(prepared=self._prepared, call=self._call, sender=self._carrier, record=self._record)
        return self._hedging.watch(hedged, lease, lag_s=place.lag_s)

    def _begin(self, lease: Lease, hedge: Hedge | None) -> None:
        if hedge is not None:
            hedge.first_token()
        lease.begin()
        self._record.first_token()
