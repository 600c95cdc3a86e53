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


@dataclass(slots=True, eq=False, kw_only=True, init=False)
class Guest(Waiter):
    """A request that waits for a worker. ``answer`` will be its lease, or None when no worker is left to take it."""

    model: ServedModel  # what it asks for
    prepared: PreparedRequest
    quota: Reservation
    answer: asyncio.Future[Lease | None] | None = None  # as soon as it has to wait for it
    lease: Lease | None = None  # as long as it is at a worker
    exclude: Collection[str] = ()
    predicted_first_token_s: float = 0.0  # by the worker that it went to
    retry_hint_s: float | None = None  # the shortest that a worker gave

    def __init__(  # noqa: PLR0913 - its fields, but those that begin as they stand above
        self,
        *,
        tenant: str,
        rank: int,
        tokens: int,
        prompt_tokens: int,
        size_bytes: int,
        arrived_at: float,
        deadline_at: float,
        leaves_at: float,
        model: ServedModel,
        prepared: PreparedRequest,
        quota: Reservation,
    ) -> None:
        Waiter.__init__(
            self,
            tenant=tenant,
            rank=rank,
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            size_bytes=size_bytes,
            arrived_at=arrived_at,
            deadline_at=deadline_at,
            leaves_at=leaves_at,
        )
        self.model = model
        self.prepared = prepared
        self.quota = quota
        self.answer = None
        self.lease = None
        self.exclude = ()
        self.predicted_first_token_s = 0.0
        self.retry_hint_s = None

    @property
    def insists_on_all_output(self) -> bool:
        """Whether it would rather be refused than given less output than it asks for."""
        return self.prepared.request.short_deadline_policy == generation_pb2.SHORT_DEADLINE_POLICY_REFUSE

    def ask(self, exclude: Collection[str]) -> None:
        """It looks for a worker not in ``exclude``."""
        self.exclude = exclude
        self.answer = None
        self.lease = None

    def wait(self) -> asyncio.Future[Lease | None]:
        """It is going to wait; returns the answer."""
        self.answer = asyncio.get_running_loop().create_future()
        return self.answer

    @property
    def has_answer(self) -> bool:
        """Whether it waits no more: it has been told, or was cancelled and is about to leave by itself."""
        return self.answer is not None and self.answer.done()

    def tell(self, lease: Lease | None) -> None:
        """What it has waited for."""
        if self.answer is not None:
            self.answer.set_result(lease)

    def send_away(self, error: GatewayError) -> None:
        """It has waited in vain. Does nothing where nobody waits for the answer any more."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)
