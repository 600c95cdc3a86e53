"""Where prepared requests wait for a worker: any worker that has room for them, and not one chosen beforehand.

``policy/waiting_line.py`` decides. This is its edge: it knows the clock and the fleet, is woken by load reports and by
the ends of streams, and gives each request whose turn has come the lease with which it goes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gateway.call import Call
from gateway.errors import GatewayError, KvExhaustedError
from gateway.jobs import PreparedRequest
from gateway.model import ServedModel
from gateway.policy.expected_output import ExpectedOutput
from gateway.policy.outcomes import Outcome, judge, no_worker_available
from gateway.policy.refusals import evicted, refused, waited_in_vain
from gateway.policy.supply import first_token_s, supply_of
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from gateway.policy.waiting_line import Refusal, WaitingLine
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Lease
from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.status import RpcError

# An output that ended so has come to its own end, and tells something of those to come.
_COMPLETE = (
    generation_pb2.FINISH_REASON_STOP,
    generation_pb2.FINISH_REASON_LENGTH,
    generation_pb2.FINISH_REASON_REPETITION,
)


@dataclass(slots=True, eq=False, kw_only=True)
class _Guest(Waiter):
    """A waiting request. ``answer`` is its lease, or None when no worker is left that could ever take it."""

    prepared: PreparedRequest
    answer: asyncio.Future[Lease | None]
    exclude: Collection[str] = ()
    retry_hint_s: float | None = None  # the shortest that a worker gave

    @property
    def model(self) -> ServedModel:
        return self.prepared.request.model


class Place:
    """One request's place, from when it comes until its stream has ended."""

    def __init__(self, room: WaitingRoom, guest: _Guest) -> None:
        self._room = room
        self._guest = guest
        self._lease: Lease | None = None
        self._failure: RpcError | None = None
        self._is_served = False

    @property
    def can_retry(self) -> bool:
        """Whether a failed attempt may be followed by another one, as far as the retry budget goes."""
        return self._room.can_retry(self._guest)

    async def lease(self, *, exclude: Collection[str]) -> Lease | None:
        """Wait for a worker not in ``exclude``; None when there is none that could ever take the request.

        Asked again after a failed attempt, it waits at its old place. The lease has to be closed. Raises
        ``GatewayError`` where the wait is too long, or would be.
        """
        guest = self._guest
        guest.exclude = exclude
        guest.answer = asyncio.get_running_loop().create_future()
        self._is_served = False
        if self._lease is None:
            self._room.enter(guest)
        else:
            self._room.come_back(guest, self._lease, self._failure)
        try:
            self._lease = await guest.answer
            self._is_served = self._lease is not None
        except asyncio.CancelledError:
            if guest.answer.done() and not guest.answer.cancelled() and (lease := guest.answer.result()):
                lease.close(Outcome.IGNORED)
            raise
        return self._lease

    def fail(self, error: RpcError) -> None:
        """The attempt with the latest lease has ended in ``error``."""
        self._failure = error

    def end(self, finished: generation_pb2.Finished | None, *, output_tokens: int) -> None:
        """The request is over, however it went. ``finished`` is None unless the generation is complete."""
        self._room.leave(self._guest, output_tokens=output_tokens, was_served=self._is_served)
        if finished is not None:
            self._room.learn(self._guest, finished)


class WaitingRoom:
    """All requests that wait, by model. Make it inside a running event loop."""

    def __init__(
        self,
        fleet: Fleet,
        rng: random.Random,
        *,
        max_wait_s: float,
        max_bytes: int,
        weights: Mapping[str, float],
    ) -> None:
        """``max_bytes`` holds for each model; ``weights`` are the shares of tenants, 1 where none is given."""
        self._fleet = fleet
        self._rng = rng
        self._max_wait_s = max_wait_s
        self._max_bytes = max_bytes
        self._weights = weights
        self._expected = ExpectedOutput()
        self._lines: dict[str, WaitingLine] = {}
        self._loop = asyncio.get_running_loop()
        self._is_woken = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        fleet.on_room(self._wake)

    def __len__(self) -> int:
        """How many requests wait."""
        return sum(len(line.queue) for line in self._lines.values())

    def place(self, prepared: PreparedRequest, call: Call) -> Place:
        """A place for the request; ``end`` it."""
        return Place(self, self._guest(prepared, call))

    def can_retry(self, guest: _Guest) -> bool:
        """Whether a failed attempt of ``guest`` may be followed by another one."""
        return self._fleet.can_retry(guest.model)

    def enter(self, guest: _Guest) -> None:
        """``guest`` comes for the first time. Raises ``GatewayError`` when it may not wait."""
        line, supply, now = self._line(guest.model), self._supply(guest.model), self._loop.time()
        if not self._fleet.seats_for(guest.model):
            raise no_worker_available()
        answer = line.offer(guest, supply, now)
        if isinstance(answer, Refusal):
            raise refused(answer, guest, supply, queue_bytes=line.queue.bytes)
        for victim in answer:
            _send_away(victim, evicted(victim, retry_after_s=line.retry_after_s(victim, supply, now)))
        self._serve(line)

    def come_back(self, guest: _Guest, lease: Lease, failure: RpcError | None) -> None:
        """``guest`` has been to a worker and is here again."""
        now, tokens = self._loop.time(), guest.tokens
        if failure is not None and judge(failure).error is KvExhaustedError:
            tokens = max(tokens, _needed_tokens(failure, lease))
            hints = (guest.retry_hint_s, failure.retry_after_s)
            guest.retry_hint_s = min((hint for hint in hints if hint is not None), default=None)
        else:  # what it has waited for was not there: its wait begins anew
            guest.leaves_at = self._leaves_at(guest.prepared, now, guest.deadline_at)
        line = self._line(guest.model)
        line.put_back(guest, now, tokens=min(tokens, guest.prepared.demand.need_tokens))
        self._serve(line)

    def learn(self, guest: _Guest, finished: generation_pb2.Finished) -> None:
        """How long the output was, if it came to its own end."""
        if finished.reason in _COMPLETE:
            self._expected.learn(
                model=guest.model.name,
                tenant=guest.tenant,
                prompt_tokens=len(guest.prepared.prompt.token_ids),
                output_tokens=finished.usage.output_token_count,
            )

    def leave(self, guest: _Guest, *, output_tokens: int, was_served: bool) -> None:
        """``guest`` is over. ``was_served``: it had a lease, which is closed."""
        line, now = self._line(guest.model), self._loop.time()
        line.leave(guest, now)
        if was_served:
            line.released(guest, len(guest.prepared.prompt.token_ids) + output_tokens, now)

    def _guest(self, prepared: PreparedRequest, call: Call) -> _Guest:
        prompt_tokens, now = len(prepared.prompt.token_ids), self._loop.time()
        tenant = ""
        expected_output = self._expected.expect(
            model=prepared.request.model.name,
            tenant=tenant,
            prompt_tokens=prompt_tokens,
            max_output_tokens=prepared.max_output_tokens,
        )
        return _Guest(
            tenant=tenant,
            rank=prepared.request.criticality - generation_pb2.CRITICALITY_CRITICAL_PLUS,
            tokens=prompt_tokens + expected_output,
            size_bytes=prepared.size_bytes,
            arrived_at=now,
            deadline_at=call.deadline_at,
            leaves_at=self._leaves_at(prepared, now, call.deadline_at),
            prepared=prepared,
            answer=self._loop.create_future(),
        )

    def _leaves_at(self, prepared: PreparedRequest, now: float, deadline_at: float) -> float:
        loads = (seat.load for seat in self._fleet.seats_for(prepared.request.model))
        prefill_s = first_token_s(loads, prompt_tokens=len(prepared.prompt.token_ids))
        return min(now + self._max_wait_s, deadline_at - prefill_s)

    def _line(self, model: ServedModel) -> WaitingLine:
        line = self._lines.get(model.name)
        if line is None:
            line = self._lines[model.name] = WaitingLine(
                max_bytes=self._max_bytes, max_wait_s=self._max_wait_s, weights=self._weights, rng=self._rng
            )
        return line

    def _supply(self, model: ServedModel) -> Supply:
        return supply_of((seat.load, seat.unseen.blocks) for seat in self._fleet.seats_for(model))

    def _wake(self) -> None:
        # Once for all that happens in this turn of the loop, and not in the middle of it.
        if not self._is_woken and any(line.queue for line in self._lines.values()):
            self._is_woken = True
            self._loop.call_soon(self._serve_all)

    def _serve_all(self) -> None:
        self._is_woken = False
        for line in self._lines.values():
            self._serve(line)

    def _serve(self, line: WaitingLine) -> None:
        """Give leases to those whose turn it is and who have room, and send away those who wait in vain."""
        now = self._loop.time()
        while isinstance(head := line.queue.head(), _Guest):
            if head.answer.done():  # cancelled, and about to leave by itself
                line.leave(head, now)
            elif self._is_hopeless(head):
                line.leave(head, now)
                head.answer.set_result(None)
            elif not line.next(self._take_lease, now) and not self._expire(line, self._supply(head.model), now):
                break
        self._set_timer()

    def _is_hopeless(self, guest: _Guest) -> bool:
        """Whether no worker that is there could ever take it. Where all have gone since it came, one may come back."""
        need_tokens = guest.prepared.demand.need_tokens
        can_hope = not self._fleet.seats_for(guest.model) and not guest.exclude
        return not can_hope and not self._fleet.can_serve(guest.model, need_tokens=need_tokens, exclude=guest.exclude)

    def _expire(self, line: WaitingLine, supply: Supply, now: float) -> bool:
        """Send away those who wait in vain; whether there were any."""
        gone = line.expire(supply, now)
        for guest in gone:
            if isinstance(guest, _Guest) and not self._fleet.seats_for(guest.model):
                _send_away(guest, no_worker_available())
                continue
            hint_s = line.retry_after_s(guest, supply, now)
            if line.tokens_per_s(supply, now) is None and isinstance(guest, _Guest) and guest.retry_hint_s is not None:
                hint_s = guest.retry_hint_s
            _send_away(guest, waited_in_vain(guest, supply, line.bound_of(guest), now=now, retry_after_s=hint_s))
        return bool(gone)

    def _take_lease(self, guest: Waiter) -> bool:
        if not isinstance(guest, _Guest):
            raise TypeError(guest)
        lease = self._fleet.lease(
            guest.model, guest.prepared.demand, exclude=guest.exclude, expected_tokens=guest.tokens
        )
        if lease is not None:
            guest.answer.set_result(lease)
        return lease is not None

    def _set_timer(self) -> None:
        expiries = (line.queue.next_expiry_at for line in self._lines.values())
        at = min((at for at in expiries if at is not None), default=None)
        if at != self._timer_at and self._timer is not None:
            self._timer.cancel()
        if at is not None and at != self._timer_at:
            self._timer = self._loop.call_at(at, self._on_timer)
        self._timer_at = at

    def _on_timer(self) -> None:
        self._timer_at = None
        self._serve_all()


def _send_away(guest: Waiter, error: GatewayError) -> None:
    if isinstance(guest, _Guest) and not guest.answer.done():
        guest.answer.set_exception(error)


def _needed_tokens(failure: RpcError, lease: Lease) -> int:
    """What the worker's ledger reckons the request to need, as far as it says so."""
    blocks = failure.metadata.get("needed_blocks", "")
    return int(blocks) * lease.load.block_size if blocks.isdecimal() else 0
