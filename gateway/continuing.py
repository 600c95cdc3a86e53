"""The way of a request from a lost worker to the next one, once its client has part of the output.

It does not wait in the waiting room: it has waited there, and its client holds half of the answer. It takes a worker
whether that seems to have room or not, and comes again when it has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gateway.call import Call
from gateway.errors import DeadlineExceededError
from gateway.jobs import Delivered, PreparedRequest
from gateway.passage import Passage
from gateway.policy.continuation import Continuation, Obstacle, interrupted, interruption
from gateway.workers.errors import WorkerCallError
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Lease
from tidegate.telemetry import conventions as names
from tidegate.telemetry.spans import current_span


class Continuing:
    """One request's. Ask ``lose`` after each attempt that failed behind the first event, then ``lease``."""

    __slots__ = ("_begin", "_call", "_continuation", "_fleet", "_passage", "_prepared")

    def __init__(
        self,
        fleet: Fleet,
        begin: Callable[[], Continuation],
        prepared: PreparedRequest,
        call: Call,
        passage: Passage,
    ) -> None:
        """``begin`` makes the request's course, once its first worker is lost: of most requests none is."""
        self._fleet = fleet
        self._begin = begin
        self._continuation: Continuation | None = None
        self._prepared = prepared
        self._call = call
        self._passage = passage

    @property
    def delivered(self) -> Delivered | None:
        """What the client has, from an earlier call perhaps; None when that is nothing."""
        passage = self._passage
        if not passage.has_begun and not passage.tokens:
            return None
        return Delivered(
            token_ids=passage.token_ids,
            text_bytes=passage.text_bytes,
            continuations=0 if self._continuation is None else self._continuation.count,
            is_started=passage.has_begun,
        )

    def lose(self, lease: Lease, failure: WorkerCallError) -> None:
        """Note that the attempt with ``lease`` failed; raises what the client is told where nobody is to go on."""
        self._fleet.refuse_poison(self._prepared.demand)
        tokens, now = self._passage.tokens, asyncio.get_running_loop().time()
        obstacle = self._course().lose(lease.worker_id, failure.error, tokens=tokens, now=now)
        if obstacle is None and not lease.can_continue:
            obstacle = Obstacle.NOT_SUPPORTED
        if obstacle is None and not self._passage.is_whole:
            obstacle = Obstacle.TOO_LONG_TO_KEEP
        if obstacle is not None:
            raise interruption(obstacle, failure.error, tokens=tokens) from failure
        span = current_span()
        if span is not None:
            span.event(
                names.WORKER_LOST, {names.SERVER_ADDRESS: lease.worker_id, names.GEN_AI_USAGE_OUTPUT_TOKENS: tokens}
            )

    async def lease(self) -> Lease:
        """A worker to go on with, after a pause if need be. Raises ``GatewayError`` when the pause is too long."""
        continuation, demand, tokens = self._course(), self._prepared.demand, self._passage.tokens
        demand = replace(demand, prompt_tokens=demand.prompt_tokens + tokens)
        while True:
            exclude = continuation.asked.union(self._fleet.beginners)
            lease = self._fleet.lease(self._prepared.request.model, demand, exclude=exclude)
            if lease is not None:
                return lease
            wait_s = continuation.wait_s(now=asyncio.get_running_loop().time())
            if wait_s is None:
                raise interrupted(Obstacle.PAUSED_TOO_LONG, tokens=tokens)
            if wait_s > self._call.remaining_s:
                raise DeadlineExceededError("the deadline passed before the output was complete")
            await asyncio.sleep(wait_s)

    def _course(self) -> Continuation:
        if self._continuation is None:
            self._continuation = self._begin()
        return self._continuation
