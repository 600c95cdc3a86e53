"""A request in the waiting room."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from gateway.errors import GatewayError
from gateway.jobs import PreparedRequest
from gateway.model import ServedModel
from gateway.policy.quota import Reservation
from gateway.policy.waiter import Waiter
from gateway.workers.seat import Lease
from tidegate.inference.v1 import generation_pb2


@dataclass(slots=True, eq=False, kw_only=True)
class Guest(Waiter):
    """A request that waits for a worker. ``answer`` is its lease, or None when no worker is left that could take it."""

    model: ServedModel  # what it asks for
    prepared: PreparedRequest
    answer: asyncio.Future[Lease | None]
    quota: Reservation
    lease: Lease | None = None  # as long as it is at a worker
    exclude: Collection[str] = ()
    predicted_first_token_s: float = 0.0  # by the worker that it went to
    retry_hint_s: float | None = None  # the shortest that a worker gave

    @property
    def insists_on_all_output(self) -> bool:
        """Whether it would rather be refused than given less output than it asks for."""
        return self.prepared.request.short_deadline_policy == generation_pb2.SHORT_DEADLINE_POLICY_REFUSE

    def ask(self, exclude: Collection[str]) -> None:
        """It waits for a worker not in ``exclude``."""
        self.exclude = exclude
        self.answer = asyncio.get_running_loop().create_future()
        self.lease = None

    def send_away(self, error: GatewayError) -> None:
        """It has waited in vain. Does nothing where nobody waits for the answer any more."""
        if not self.answer.done():
            self.answer.set_exception(error)
