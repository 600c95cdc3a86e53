"""Runs a prepared request on a worker and has its messages carried to the client.

Another worker may be tried only as long as the client has seen nothing: the first event decides (docs/adr/0004). How
messages are carried is the data plane's business; that there is one, is not known here.
"""

from __future__ import annotations

from typing import Protocol

from opentelemetry.trace import Tracer

from gateway.call import Call
from gateway.errors import DeadlineExceededError
from gateway.jobs import PreparedRequest
from gateway.passage import Passage
from gateway.policy.attempts import Attempts
from gateway.policy.outcomes import Outcome, client_error, judge
from gateway.spans import AttemptSpan
from gateway.waiting_room import Place, WaitingRoom
from gateway.workers.errors import WorkerCallError
from gateway.workers.seat import Lease


class Carrier(Protocol):
    """The way of one call's messages from a worker to its client."""

    async def carry(
        self, lease: Lease, job: bytes, passage: Passage, *, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """Run ``job``, a serialised worker's request, and send the client what ``passage`` makes of the messages.

        Returns when the worker has ended the call with OK. The worker's call ends with this one, however it ends.
        Raises ``WorkerCallError``.
        """


class Dispatch:
    """Finds a worker for each request, and another one while that is possible."""

    def __init__(self, waiting_room: WaitingRoom, tracer: Tracer) -> None:
        self._waiting_room = waiting_room
        self._tracer = tracer

    async def generate(self, prepared: PreparedRequest, call: Call, carrier: Carrier) -> None:
        """Carry the generation to the client. Being cancelled frees the request's blocks on its worker.

        Raises the ``GatewayError`` that the client is told.
        """
        await _Run(self._waiting_room.place(prepared, call), self._tracer, prepared, call, carrier).to_end()


class _Run:
    """One request, from its first attempt to its last."""

    def __init__(self, place: Place, tracer: Tracer, prepared: PreparedRequest, call: Call, carrier: Carrier) -> None:
        self._place = place
        self._tracer = tracer
        self._prepared = prepared
        self._call = call
        self._carrier = carrier
        self._attempts = Attempts()
        self._passage = Passage()

    async def to_end(self) -> None:
        place, attempts, passage = self._place, self._attempts, self._passage
        try:
            while lease := await place.lease(exclude=attempts.unfit):
                try:
                    await self._attempt(lease)
                    return
                except WorkerCallError as failure:
                    if passage.has_begun:
                        raise client_error(failure.error, tokens_sent=passage.tokens) from failure
                    attempts.record(lease.worker_id, failure.error)
                    if not attempts.can_move_on(has_budget=place.can_retry):
                        raise attempts.error() from failure
                    place.fail(failure.error)
            raise attempts.error()
        finally:
            place.end(passage.finished, output_tokens=passage.tokens)

    async def _attempt(self, lease: Lease) -> None:
        """One call to one worker. However it ends, the call, the lease and the span end with it."""
        prepared, call, passage = self._prepared, self._call, self._passage
        span = AttemptSpan(self._tracer, prepared, lease, number=self._attempts.count + 1)
        passage.expect(lease.begin)
        outcome, error = Outcome.IGNORED, None  # unless it ends by itself, the client is gone
        try:
            if not call.remaining_s:
                raise DeadlineExceededError("the deadline passed before a worker was asked")
            job = prepared.job(prepared.budget(lease.load, remaining_s=call.remaining_s)).SerializeToString()
            await self._carrier.carry(lease, job, passage, timeout_s=call.remaining_s, metadata=span.metadata)
            passage.end()
            outcome = Outcome.SUCCESS
        except WorkerCallError as failure:
            error = failure.error
            outcome = judge(error).outcome
            raise
        finally:
            lease.close(
                outcome,
                is_lost=error is not None and judge(error).is_lost,
                output_tokens=passage.tokens,
                cached_tokens=passage.cached_tokens,
            )
            span.end(outcome, passage, error)
