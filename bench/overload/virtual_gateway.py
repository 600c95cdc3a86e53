"""The gateway's waiting line in virtual time, before the books of its workers.

What gRPC and asyncio do between them is imitated by delays: a hop in each direction, and load reports that lag.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bench.overload.score import Answer
from bench.overload.trace import MAX_OUTPUT_TOKENS, Arrival
from bench.overload.virtual import Agenda
from bench.overload.virtual_seat import VirtualSeat
from bench.overload.virtual_worker import VirtualWorker
from gateway.config import GatewaySettings
from gateway.criticality import criticality_of
from gateway.policy.balancer import pick
from gateway.policy.demand import Demand
from gateway.policy.elsewhere import Elsewhere
from gateway.policy.expected_output import ExpectedOutput
from gateway.policy.kept_room import kept_on_each
from gateway.policy.load import WorkerLoad
from gateway.policy.supply import reported_output, supply_of
from gateway.policy.unseen_work import Sent
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from gateway.policy.waiting_line import Refusal, WaitingLine
from worker import waiting_board as worker_board
from worker.ledger import AtCapacityError

HOP_S = 0.001
# gRPC rounds a deadline of two minutes to a second.
_DEADLINE_S = (119.0, 121.0)
_MODEL = "sim"
_MAX_WAIT_S: float = GatewaySettings.model_fields["max_wait_s"].default
_RANKS = ("CRITICAL_PLUS", "CRITICAL", "SHEDDABLE_PLUS", "SHEDDABLE")


@dataclass(eq=False, kw_only=True)
class _Caller(Waiter):
    """A request in the gateway's line, and at its worker."""

    arrival: Arrival
    answer: Answer


class VirtualGateway:
    """One gateway with its workers."""

    def __init__(self, agenda: Agenda, workers: Sequence[VirtualWorker], number: int) -> None:
        self._number = number
        self._agenda = agenda
        self._rng = random.Random(number)
        self._line = WaitingLine(max_bytes=64 * 2**20, max_wait_s=_MAX_WAIT_S, weights={}, rng=random.Random(number))
        self._expected = ExpectedOutput()
        self._elsewhere = Elsewhere(number)
        self._refused: deque[tuple[int, Arrival, Answer]] = deque()
        self._seats = [VirtualSeat(worker, place) for place, worker in enumerate(workers)]
        for seat in self._seats:
            seat.worker.watch(partial(self._hear, seat))

    def enter(self, arrival: Arrival, answer: Answer) -> None:
        """A client's call has come in."""
        now = self._agenda.now
        expected = self._expected.expect(
            model=_MODEL,
            tenant=arrival.tenant,
            prompt_tokens=arrival.prompt_tokens,
            max_output_tokens=MAX_OUTPUT_TOKENS,
            reported=reported_output(seat.load for seat in self._seats),
        )
        caller = _Caller(
            tenant=arrival.tenant,
            rank=_RANKS.index(arrival.criticality),
            tokens=arrival.prompt_tokens + expected,
            prompt_tokens=arrival.prompt_tokens,
            size_bytes=4 * arrival.prompt_tokens,
            arrived_at=now,
            deadline_at=now + self._rng.uniform(*_DEADLINE_S),
            leaves_at=now + _MAX_WAIT_S,
            arrival=arrival,
            answer=answer,
        )
        if self._line.pass_through(caller, self._send, self._supply, now):
            return
        outcome = self._line.offer(caller, self._supply(), now)
        if isinstance(outcome, Refusal):
            self._refuse(caller, outcome.retry_after_s, has_waited=False)
            self._refused.append((self._line.queue.last_number, arrival, answer))
            return
        for victim in outcome:
            self._refuse(victim, self._line.retry_after_s(victim, self._supply(), now), has_waited=True)
        self._serve()

    def _serve(self) -> None:
        now = self._agenda.now
        while True:
            caller = self._line.next(self._send, now)
            if caller is None:
                gone = self._line.expire(self._supply(), now)
                for waiter in gone:
                    self._refuse(waiter, self._line.retry_after_s(waiter, self._supply(), now), has_waited=True)
                if not gone:
                    break
        for at in (self._line.queue.next_expiry_at, self._line.turn.ask_again_at):
            if at is not None:
                self._agenda.at(at, partial(self._serve_at, at))

    def _serve_at(self, at: float) -> None:
        if at in (self._line.queue.next_expiry_at, self._line.turn.ask_again_at):
            self._serve()

    def _send(self, waiter: Waiter) -> bool:
        """The gateway's lease: a place for the request, if the worker seems to have room."""
        caller, now = _as_caller(waiter), self._agenda.now
        turn, elsewhere = self._line.turn, self._elsewhere.queues(now)
        kept = kept_on_each([seat.free_tokens for seat in self._seats], caller.fit)
        fitting = [seat for seat, spare in zip(self._seats, kept, strict=True) if seat.has_room(caller, spare)]
        if not fitting:
            turn.end()
            return False
        if not turn.may_go(caller, elsewhere, now):
            return False
        turn.end()
        seat = self._chosen(caller, fitting)
        sent = seat.send(caller)
        self._agenda.at(now + HOP_S, partial(self._reach_worker, caller, seat, sent))
        return True

    def _chosen(self, caller: _Caller, seats: Sequence[VirtualSeat]) -> VirtualSeat:
        """As ``gateway.workers.fleet.Fleet.lease``."""
        arrival, candidates = caller.arrival, {}
        for seat in seats:
            candidate = seat.as_candidate(self._agenda.now)
            candidates[candidate.worker_id] = candidate, seat
        demand = Demand(prompt_tokens=arrival.prompt_tokens, need_tokens=arrival.prompt_tokens + MAX_OUTPUT_TOKENS)
        choice = pick((candidate for candidate, _ in candidates.values()), demand, exclude=(), rng=self._rng)
        return seats[0] if choice is None else candidates[choice.worker.worker_id][1]

    def _reach_worker(self, caller: _Caller, seat: VirtualSeat, sent: Sent) -> None:
        at = self._agenda.now + HOP_S
        queue, head = self._line.queue, self._line.queue.head()
        told = worker_board.GatewayQueue(
            gateway_id=self._number,
            waiting_tokens=queue.tokens,
            first_criticality=criticality_of(head.rank) if head else 0,
            is_first_above_share=head is not None and head.is_above_share,
            first_wait_s=self._agenda.now - head.arrived_at if head else 0.0,
            tenant_demands=tuple(self._line.asked_per_s),
            above_share_tokens=queue.above_share_tokens,
        )
        seat.worker.board.tell(told)
        try:
            seat.worker.generate(caller.arrival, caller.answer, partial(self._end_soon, caller, seat, sent))
        except AtCapacityError as error:
            tokens = error.refusal.needed_blocks * seat.load.block_size
            self._agenda.at(at, lambda: self._come_back(caller, seat, sent, tokens))
            return
        sample_number = seat.worker.sample_number
        self._agenda.at(at, lambda: seat.unseen.admit(sent, sample_number))
        self._note_start(caller)

    def _come_back(self, caller: _Caller, seat: VirtualSeat, sent: Sent, tokens: int) -> None:
        seat.end(sent)
        seat.refuse()
        self._line.put_back(caller, tokens=max(caller.tokens, tokens))
        self._serve()

    def _end_soon(self, caller: _Caller, seat: VirtualSeat, sent: Sent) -> None:
        self._agenda.at(self._agenda.now + HOP_S, partial(self._end, caller, seat, sent))

    def _end(self, caller: _Caller, seat: VirtualSeat, sent: Sent) -> None:
        seat.end(sent)
        arrival = caller.arrival
        self._expected.learn(
            model=_MODEL,
            tenant=arrival.tenant,
            prompt_tokens=arrival.prompt_tokens,
            output_tokens=arrival.output_tokens,
        )
        self._line.released(caller, arrival.prompt_tokens + arrival.output_tokens)
        self._serve()

    def _refuse(self, waiter: Waiter, hint_s: float, *, has_waited: bool) -> None:
        answer = _as_caller(waiter).answer
        answer.refused_at = self._agenda.now + HOP_S
        answer.hint_s = hint_s
        answer.has_waited = has_waited

    def _note_start(self, caller: _Caller) -> None:
        """Whoever was refused before ``caller`` came, and was of its kind, would have started by now."""
        now, kind = self._agenda.now, _kind(caller.arrival)
        still_refused = deque[tuple[int, Arrival, Answer]]()
        for number, arrival, answer in self._refused:
            if number < caller.number and _kind(arrival) == kind:
                answer.needed_wait_s = now - answer.arrival_s
            else:
                still_refused.append((number, arrival, answer))
        self._refused = still_refused

    def _supply(self) -> Supply:
        return supply_of([seat.room for seat in self._seats], self._elsewhere.gateways(self._agenda.now))

    def _hear(self, seat: VirtualSeat, load: WorkerLoad) -> None:
        self._agenda.at(self._agenda.now + HOP_S, partial(self._receive, seat, load))

    def _receive(self, seat: VirtualSeat, load: WorkerLoad) -> None:
        self._elsewhere.hear(load.gateway_queues)
        seat.receive(load)
        self._serve()


def _as_caller(waiter: Waiter) -> _Caller:
    if not isinstance(waiter, _Caller):
        raise TypeError(waiter)
    return waiter


def _kind(arrival: Arrival) -> tuple[str, str]:
    return arrival.tenant, arrival.criticality
