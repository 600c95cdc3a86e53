"""One request's place in the waiting room."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from gateway.errors import GatewayError, reason_of
from gateway.guest import Guest
from gateway.policy.attempts import Attempts
from gateway.policy.outcomes import Outcome
from gateway.policy.record import Record
from gateway.workers.seat import Lease
from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.status import RpcError
from tidegate.worker.v1 import worker_service_pb2

if TYPE_CHECKING:
    from gateway.waiting_room import WaitingRoom


class Place:
    """One request's place, from when it comes until its stream has ended."""

    __slots__ = ("_failure", "_guest", "_is_served", "_lease", "_room")

    def __init__(self, room: WaitingRoom, guest: Guest) -> None:
        self._room = room
        self._guest = guest
        self._lease: Lease | None = None
        self._failure: RpcError | None = None
        self._is_served = False

    def can_move_on(self, attempts: Attempts) -> bool:
        """Whether another worker may be asked after the latest of ``attempts``."""
        return self._room.can_move_on(self._guest, attempts)

    def lease_at_once(self) -> Lease | None:
        """A worker for one that has just come, where nobody waits and there is room; None otherwise.

        The lease has to be closed. Raises ``GatewayError`` where the request can never be served.
        """
        try:
            lease = self._room.pass_through(self._guest)
        except GatewayError as error:
            self._room.refusals[reason_of(error)] += 1
            raise
        if lease is not None:
            self._lease = lease
            self._is_served = True
        return lease

    async def lease(self, *, exclude: Collection[str]) -> Lease | None:
        """Wait for a worker not in ``exclude``; None when there is none that could ever take the request.

        Ask ``lease_at_once`` before. Asked again after a failed attempt, it waits at its old place. The lease has to be
        closed. Raises ``GatewayError`` where the wait is too long, or would be.
        """
        guest = self._guest
        guest.ask(exclude)
        self._is_served = False
        try:
            answer = guest.wait()
            if self._lease is None:
                self._room.enter(guest)
            else:
                self._room.come_back(guest, self._lease, self._failure)
            lease = await answer
            self._lease = lease or self._lease
            return lease
        except GatewayError as error:
            self._room.refusals[reason_of(error)] += 1
            raise
        finally:
            self._is_served = guest.lease is not None
            if guest.lease is not None and guest.lease is not self._lease:  # cancelled in the instant in which it came
                guest.lease.close(Outcome.IGNORED)

    @property
    def lag_s(self) -> float:
        """How much later than a worker's rates foretell its first token is to be expected."""
        return self._room.lag_s

    @property
    def on_decision(self) -> Callable[[Record], None] | None:
        """Who is told of decisions."""
        return self._room.on_decision

    @property
    def queue(self) -> worker_service_pb2.GatewayQueue:
        """What waits for the same model, for other gateways to know."""
        return self._room.queue_of(self._guest.model)

    def go_on(self, lease: Lease) -> None:
        """The request goes on with ``lease``, for which it has not waited here: the one before is held no longer."""
        self._lease = lease
        self._room.go_on(self._guest)

    def fail(self, error: RpcError) -> None:
        """The attempt with the latest lease has ended in ``error``."""
        self._failure = error

    def end(self, finished: generation_pb2.Finished | None, *, output_tokens: int) -> None:
        """The request is over, however it went. ``finished`` is None unless the generation is complete."""
        used_tokens = self._guest.prompt_tokens + output_tokens if self._is_served else None
        self._room.leave(self._guest, finished, used_tokens=used_tokens)
