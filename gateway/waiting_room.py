"""Where prepared requests wait for a worker: any worker that has room for them, and not one chosen beforehand.

``policy/waiting_line.py`` decides. This is its edge: it knows the clock and the fleet, is woken by load reports and by
the ends of streams, and gives each request whose turn has come the lease with which it goes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from gateway.call import Call
from gateway.criticality import criticality_of
from gateway.errors import GatewayError, KvExhaustedError, reason_of
from gateway.guest import Guest
from gateway.intake import Intake
from gateway.jobs import PreparedRequest
from gateway.model import ServedModel
from gateway.place import Place
from gateway.policy.attempts import Attempts
from gateway.policy.decision import retry_record
from gateway.policy.misfits import Misfits
from gateway.policy.outcomes import judge, no_worker_available
from gateway.policy.record import Record
from gateway.policy.refusals import evicted, refused, waited_in_vain
from gateway.policy.supply import WorkerRoom, supply_of
from gateway.policy.turn import Turn
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from gateway.policy.waiting_line import Bound, Refusal, WaitingLine
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Lease
from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.status import RpcError
from tidegate.worker.v1 import worker_service_pb2


class WaitingRoom:
    """All requests that wait, by model. Make it inside a running event loop."""

    def __init__(self, fleet: Fleet, intake: Intake, make_line: Callable[[], WaitingLine]) -> None:
        """``make_line`` makes the empty line of a model."""
        self._fleet = fleet
        self._intake = intake
        self._make_line = make_line
        self._lines: dict[str, WaitingLine] = {}
        self._loop = asyncio.get_running_loop()
        self._is_woken = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self.refusals: Counter[str] = Counter()  # by reason, since the start
        self._quiet_asked: Sequence[tuple[str, float]] | None = None  # what is asked for while nobody waits
        self._quiet_queue = worker_service_pb2.GatewayQueue()
        self._misfits: dict[int, Misfits] | None = None  # by the ids of models, while a line is served
        fleet.on_room(self._wake)

    def __len__(self) -> int:
        """How many requests wait."""
        return sum(len(line.queue) for line in self._lines.values())

    def __bool__(self) -> bool:
        """Whether any request waits."""
        return len(self) > 0

    @property
    def lag_s(self) -> float:
        """How much later than the workers' rates foretell first tokens come of late."""
        return self._intake.lag_s

    @property
    def on_decision(self) -> Callable[[Record], None] | None:
        """Who is told of decisions."""
        return self._fleet.on_decision

    @property
    def waiting(self) -> Counter[tuple[int, str]]:
        """How many requests wait, by rank of criticality (0 is the most critical) and tenant."""
        return Counter((waiter.rank, waiter.tenant) for line in self._lines.values() for waiter in line.queue)

    @property
    def oldest_age_s(self) -> float:
        """For how long the one that came first of all has waited; 0 when nobody waits."""
        came_at = (waiter.arrived_at for line in self._lines.values() for waiter in line.queue)
        now = self._loop.time()
        return max(0.0, now - min(came_at, default=now))

    def predicted_wait_s(self, model: ServedModel) -> float | None:
        """How long it will take to serve all that wait for ``model`` now; None while that is not known."""
        line, supply = self._line(model), self._supply(model)
        return line.predicted_clearance_s(supply)

    def place(self, prepared: PreparedRequest, call: Call) -> Place:
        """A place for the request; ``end`` it. Raises ``QuotaExceededError``."""
        try:
            return Place(self, self._intake.guest(prepared, call))
        except GatewayError as error:
            self.refusals[reason_of(error)] += 1
            raise

    def queue_of(self, model: ServedModel) -> worker_service_pb2.GatewayQueue:
        """What waits for ``model``, for other gateways to know."""
        line = self._line(model)
        if not line.queue:
            return self._quiet(line)
        queue = worker_service_pb2.GatewayQueue(
            gateway_id=self._fleet.gateway_id,
            waiting_token_count=line.queue.tokens,
            above_share_token_count=line.queue.above_share_tokens,
        )
        if (head := line.queue.head()) is not None:
            queue.first_criticality = criticality_of(head.rank)
            queue.is_first_above_share = head.is_above_share
            queue.first_wait_duration.FromMilliseconds(round((self._loop.time() - head.arrived_at) * 1e3))
        for tenant, tokens_per_s in line.asked_per_s:
            queue.tenant_demands.add(tenant=tenant, tokens_per_second=tokens_per_s)
        return queue

    def _quiet(self, line: WaitingLine) -> worker_service_pb2.GatewayQueue:
        """Of a line in which nobody waits, which is the same for all requests in a row."""
        if self._quiet_asked is None or self._quiet_asked is not line.asked_per_s:
            self._quiet_asked = line.asked_per_s
            self._quiet_queue = worker_service_pb2.GatewayQueue(gateway_id=self._fleet.gateway_id)
            for tenant, tokens_per_s in self._quiet_asked:
                self._quiet_queue.tenant_demands.add(tenant=tenant, tokens_per_second=tokens_per_s)
        return self._quiet_queue

    def make_way(self, rank: int) -> bool:
        """Send away the least critical that waits, if it is less critical than ``rank``; whether there was one."""
        queues = (line.least_critical(rank) for line in self._lines.values())
        victims = [victim for victim in queues if victim is not None]
        if not victims:
            return False
        victim = _as_guest(max(victims, key=lambda one: one.rank))
        line, now = self._line(victim.model), self._loop.time()
        line.leave(victim)
        hint_s = line.retry_after_s(victim, self._supply(victim.model), now)
        victim.send_away(evicted(victim, Bound.IN_FLIGHT, retry_after_s=hint_s))
        return True

    def can_move_on(self, guest: Guest, attempts: Attempts) -> bool:
        """Whether another worker may be asked for ``guest``, also by the retry budget of its model."""
        has_budget = self._fleet.can_retry(guest.model)
        if self._fleet.on_decision is not None and (retry := attempts.retry) is not None:
            self._fleet.on_decision(retry_record(retry, has_budget=has_budget))
        return attempts.can_move_on(has_budget=has_budget)

    def pass_through(self, guest: Guest) -> Lease | None:
        """The lease of ``guest``, which comes for the first time, where nobody waits and there is room for it.

        Otherwise nothing has happened yet, and it may ``enter``. Raises ``GatewayError`` when it can never be served.
        """
        self._fleet.refuse_poison(guest.prepared.demand)
        if not self._fleet.seats_for(guest.model):
            raise no_worker_available()
        line, now = self._line(guest.model), self._loop.time()
        if guest.insists_on_all_output:
            wait_s = line.predicted_wait_s(guest, self._supply(guest.model), now)
            self._intake.check_deadline(guest, wait_s=wait_s or 0.0)
        line.pass_through(guest, self._take_lease, partial(self._supply, guest.model), now)
        return guest.lease

    def enter(self, guest: Guest) -> None:
        """``guest`` is going to wait; ask ``pass_through`` before. Raises ``GatewayError`` when it may not."""
        line, supply, now = self._line(guest.model), self._supply(guest.model), self._loop.time()
        answer = line.offer(guest, supply, now)
        if isinstance(answer, Refusal):
            raise refused(answer, guest, supply, queue_bytes=line.queue.bytes)
        for victim in answer:
            hint_s = line.retry_after_s(victim, supply, now)
            _as_guest(victim).send_away(evicted(victim, Bound.QUEUE_BYTES, retry_after_s=hint_s))
        self._serve(line)

    def come_back(self, guest: Guest, lease: Lease, failure: RpcError | None) -> None:
        """``guest`` has been to a worker and is here again. Raises ``GatewayError`` when it may not."""
        line = self._line(guest.model)
        try:
            self._fleet.refuse_poison(guest.prepared.demand)
        except GatewayError:
            line.released(guest, 0)  # it does not get back into the line, and holds nothing any more
            raise
        tokens = guest.tokens
        if failure is not None and judge(failure).error is KvExhaustedError:
            tokens = max(tokens, _needed_tokens(failure, lease))
            hints = (guest.retry_hint_s, failure.retry_after_s)
            guest.retry_hint_s = min((hint for hint in hints if hint is not None), default=None)
        else:
            self._intake.begin_anew(guest)
        line.put_back(guest, tokens=min(tokens, guest.prepared.demand.need_tokens))
        self._serve(line)

    def go_on(self, guest: Guest) -> None:
        """``guest`` is not at the worker any more that it waited for, but at another one."""
        self._intake.note_first_token(guest)

    def leave(self, guest: Guest, finished: generation_pb2.Finished | None, *, used_tokens: int | None) -> None:
        """``guest`` is over, and its lease closed. ``used_tokens``: prompt and output; None if it was not served."""
        line = self._line(guest.model)
        if guest.is_waiting:
            line.leave(guest)
            self._wake()  # others may have waited behind it
        if used_tokens is not None:
            line.released(guest, used_tokens)
        self._intake.settle(guest, finished, used_tokens=used_tokens)

    def _line(self, model: ServedModel) -> WaitingLine:
        line = self._lines.get(model.name)
        if line is None:
            line = self._lines[model.name] = self._make_line()
        return line

    def _supply(self, model: ServedModel) -> Supply:
        rooms = [
            WorkerRoom(
                load=seat.load,
                unseen_blocks=seat.unseen.blocks,
                unseen_requests=seat.unseen.requests,
                unseen_prefill_tokens=seat.unseen.prefill_tokens,
                own_blocks=seat.in_flight_blocks,
            )
            for seat in self._fleet.seats_for(model)
        ]
        return supply_of(rooms, self._fleet.gateways_elsewhere(model))

    def _wake(self) -> None:
        # Once for all that happens in this turn of the loop, and not in the middle of it.
        if self._is_woken:
            return
        for line in self._lines.values():
            if line.queue:
                self._is_woken = True
                self._loop.call_soon(self._serve_all)
                return

    def _serve_all(self) -> None:
        self._is_woken = False
        for line in self._lines.values():
            self._serve(line)

    def _serve(self, line: WaitingLine) -> None:
        """Give leases to those whose turn it is and who have room, and send away those who wait in vain."""
        now = self._loop.time()
        self._misfits = {}
        try:
            while waiter := line.queue.head():
                head = _as_guest(waiter)
                if head.has_answer:
                    line.leave(head)
                elif self._is_hopeless(head):
                    line.leave(head)
                    head.tell(None)
                elif not line.next(self._take_lease, now) and not self._expire(line, self._supply(head.model), now):
                    break
        finally:
            self._misfits = None
        if not line.queue:
            _end_if_begun(line.turn)
        self._set_timer()

    def _is_hopeless(self, guest: Guest) -> bool:
        """Whether no worker that is there could ever take it. Where all have gone since it came, one may come back."""
        need_tokens = guest.prepared.demand.need_tokens
        can_hope = not self._fleet.seats_for(guest.model) and not guest.exclude
        return not can_hope and not self._fleet.can_serve(guest.model, need_tokens=need_tokens, exclude=guest.exclude)

    def _expire(self, line: WaitingLine, supply: Supply, now: float) -> bool:
        """Send away those who wait in vain; whether there were any."""
        gone = [_as_guest(waiter) for waiter in line.expire(supply, now)]
        for guest in gone:
            if not self._fleet.seats_for(guest.model):
                guest.send_away(no_worker_available())
                continue
            hint_s = line.retry_after_s(guest, supply, now, worker_hint_s=guest.retry_hint_s)
            guest.send_away(waited_in_vain(guest, supply, line.bound_of(guest), now=now, retry_after_s=hint_s))
        return bool(gone)

    def _take_lease(self, waiter: Waiter) -> bool:
        guest = _as_guest(waiter)
        if guest.has_answer:
            return False
        demand, fit = guest.prepared.demand, guest.fit
        misfits = None
        if self._misfits is not None and not guest.exclude:  # else it may be the only one who finds no room
            misfits = self._misfits.setdefault(id(guest.model), Misfits())
            if misfits.cover(demand, fit):
                return False
        elsewhere, line = self._fleet.queues_elsewhere(guest.model), self._line(guest.model)
        has_room = True  # as far as is known yet
        if not elsewhere:
            _end_if_begun(line.turn)
        else:
            has_room = self._fleet.has_room(guest.model, demand, fit, exclude=guest.exclude)
            # Before the first in line of other gateways it takes no room.
            if has_room and not line.turn.may_go(guest, elsewhere, self._loop.time()):
                return False
            # That there is none for those behind the first does not set back the first.
            if has_room or guest is line.queue.head():
                line.turn.end()
        lease = self._fleet.lease(guest.model, demand, fit, exclude=guest.exclude) if has_room else None
        if lease is None:
            if misfits is not None:
                misfits.add(demand, fit)
            return False
        guest.lease = lease
        self._intake.predict_first_token(guest, lease)
        guest.tell(lease)
        return True

    def _set_timer(self) -> None:
        events = [at for line in self._lines.values() for at in (line.queue.next_expiry_at, line.turn.ask_again_at)]
        at = min((at for at in events if at is not None), default=None)
        if at != self._timer_at and self._timer is not None:
            self._timer.cancel()
        if at is not None and at != self._timer_at:
            self._timer = self._loop.call_at(at, self._on_timer)
        self._timer_at = at

    def _on_timer(self) -> None:
        self._timer_at = None
        self._serve_all()


def _as_guest(waiter: Waiter) -> Guest:
    """What the line was given as a waiter."""
    if not isinstance(waiter, Guest):
        raise TypeError(waiter)
    return waiter


def _end_if_begun(turn: Turn) -> None:
    """There is no turn to wait for: asked for again at its time, it would be asked for in every turn of the loop."""
    if turn.ask_again_at is not None:
        turn.end()


def _needed_tokens(failure: RpcError, lease: Lease) -> int:
    """What the worker's ledger reckons the request to need, as far as it says so."""
    blocks = failure.metadata.get("needed_blocks", "")
    return int(blocks) * lease.load.block_size if blocks.isdecimal() else 0
