"""Runs a prepared request on a worker and relays its events.

Another worker may be tried only as long as the client has seen nothing: the first event decides (docs/adr/0004). From
there on there is one loop, with no queue between the worker's stream and the client's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry.trace import Tracer

from gateway.call import Call
from gateway.errors import DeadlineExceededError
from gateway.jobs import PreparedRequest
from gateway.policy.attempts import Attempts
from gateway.policy.outcomes import Outcome, client_error, judge
from gateway.relay import Relay
from gateway.spans import AttemptSpan
from gateway.workers.errors import WorkerCallError
from gateway.workers.fleet import Fleet, Lease
from tidegate.inference.v1 import inference_service_pb2

_Response = inference_service_pb2.GenerateResponse


class Dispatch:
    """Finds a worker for each request, and another one while that is possible."""

    def __init__(self, fleet: Fleet, tracer: Tracer) -> None:
        self._fleet = fleet
        self._tracer = tracer

    async def generate(self, prepared: PreparedRequest, call: Call) -> AsyncGenerator[_Response]:
        """The events of the generation. Closing this generator frees the request's blocks on its worker.

        Raises the ``GatewayError`` that the client is told.
        """
        model = prepared.request.model
        attempts = Attempts()
        while lease := self._fleet.lease(model, need_tokens=prepared.need_tokens, exclude=attempts.asked):
            relay = Relay()
            try:
                async with self._attempt(prepared, call, lease, relay, number=len(attempts.asked) + 1) as responses:
                    async for response in responses:
                        relay.note(response)
                        yield response
                return
            except WorkerCallError as failure:
                if relay.has_begun:
                    raise client_error(failure.error, tokens_sent=relay.tokens) from failure
                attempts.record(lease.worker_id, failure.error)
                if not attempts.can_move_on(has_budget=self._fleet.can_retry(model)):
                    raise attempts.error() from failure
        raise attempts.error()

    @asynccontextmanager
    async def _attempt(
        self, prepared: PreparedRequest, call: Call, lease: Lease, relay: Relay, *, number: int
    ) -> AsyncIterator[AsyncIterator[_Response]]:
        """One call to one worker. However it ends, the call, the lease and the span end with it."""
        span = AttemptSpan(self._tracer, prepared, lease, number=number)
        outcome, error = Outcome.IGNORED, None  # unless it ends by itself, the client is gone
        try:
            if not call.remaining_s:
                raise DeadlineExceededError("the deadline passed before a worker was asked")
            job = prepared.job(prepared.budget(lease.load, remaining_s=call.remaining_s))
            async with lease.client.generate(job, timeout_s=call.remaining_s, metadata=span.metadata) as responses:
                yield responses
            relay.end()
            outcome = Outcome.SUCCESS
        except WorkerCallError as failure:
            error = failure.error
            outcome = judge(error).outcome
            raise
        finally:
            lease.close(outcome)
            span.end(outcome, relay, error)
