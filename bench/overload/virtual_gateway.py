"""The gateway's waiting line in virtual time, before a worker's books.

What gRPC and asyncio do between them is imitated by delays: a hop in each direction, and load reports that lag.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from functools import partial

from bench.overload.score import Answer
from bench.overload.trace import MAX_OUTPUT_TOKENS, Arrival
from bench.overload.virtual import Agenda
from bench.overload.virtual_worker import VirtualWorker
from gateway.config import GatewaySettings
from gateway.criticality import criticality_of
from gateway.policy.elsewhere import Elsewhere
from gateway.policy.expected_output import ExpectedOutput
from gateway.policy.load import WorkerLoad
from gateway.policy.supply import WorkerRoom, reported_output, supply_of
from gateway.policy.unseen_work import Sent, UnseenWork
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
    sent: Sent | None = None


class VirtualGateway:
    """One gateway with one worker."""

    def __init__(self, agenda: Agenda, worker: VirtualWorker, number: int) -> None:
        self._number = number
        self._worker = worker
        self._agenda = agenda
        self._rng = random.Random(number)
        self._line = WaitingLine(max_bytes=64 * 2**20, max_wait_s=_MAX_WAIT_S, weights={}, rng=random.Random(number))
        self._expected = ExpectedOutput()
        self._load = worker.load()
        self._elsewhere = Elsewhere(number)
        self._unseen = UnseenWork(self._load.sample_number)
        self._in_flight_blocks = 0
        self._has_refused = False
        self._refused: deque[tuple[int, Arrival, Answer]] = deque()
        worker.watch(self._hear)

    def enter(self, arrival: Arrival, answer: Answer) -> None:
        """A client's call has come in."""
        now = self._agenda.now
        expected = self._expected.expect(
            model=_MODEL,
            tenant=arrival.tenant,
            prompt_tokens=arrival.prompt_tokens,
            max_output_tokens=MAX_OUTPUT_TOKENS,
            reported=reported_output([self._load]),
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
        caller = _as_caller(waiter)
        blocks = -(-caller.tokens // self._load.block_size)
        turn, elsewhere = self._line.turn, self._elsewhere.queues(self._agenda.now)
        if not self._has_room(caller):
            turn.end()
            return False
        if not turn.may_go(caller, elsewhere, self._agenda.now):
            return False
        turn.end()
        caller.sent = self._unseen.send(blocks=blocks, prefill_tokens=caller.arrival.prompt_tokens)
        self._in_flight_blocks += blocks
        self._agenda.at(self._agenda.now + HOP_S, lambda: self._reach_worker(caller))
        return True

    def _reach_worker(self, caller: _Caller) -> None:
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
        self._worker.board.tell(told)
        try:
            self._worker.generate(caller.arrival, caller.answer, partial(self._end_soon, caller))
        except AtCapacityError as error:
            tokens = error.refusal.needed_blocks * self._load.block_size
            self._agenda.at(at, lambda: self._come_back(caller, tokens))
            return
        sample_number = self._worker.sample_number
        self._agenda.at(at, lambda: self._admit(caller, sample_number))
        self._note_start(caller)

    def _admit(self, caller: _Caller, sample_number: int) -> None:
        if caller.sent:
            self._unseen.admit(caller.sent, sample_number)

    def _has_room(self, caller: _Caller) -> bool:
        """As ``gateway.workers.seat.Seat.has_room``."""
        load, unseen, prompt_tokens = self._load, self._unseen, caller.arrival.prompt_tokens
        spare_tokens = caller.headroom_tokens if load.reserved_blocks or unseen.blocks else 0
        blocks = -(-(caller.tokens + spare_tokens) // load.block_size)
        has_place = load.admissible_requests is None or unseen.requests < load.admissible_requests
        before_tokens, most_tokens = load.pending_prefill_tokens + unseen.prefill_tokens, caller.prefill_line_tokens
        has_time = (
            load.admissible_prompt_tokens is None
            or prompt_tokens + unseen.prefill_tokens <= load.admissible_prompt_tokens
        ) and (most_tokens is None or not before_tokens or before_tokens + prompt_tokens <= most_tokens)
        return not self._has_refused and has_place and has_time and blocks <= load.available_blocks - unseen.blocks

    def _close(self, caller: _Caller) -> None:
        if caller.sent:
            self._unseen.end(caller.sent)
            self._in_flight_blocks -= caller.sent.blocks

    def _come_back(self, caller: _Caller, tokens: int) -> None:
        self._close(caller)
        self._has_refused = True
        self._line.put_back(caller, tokens=max(caller.tokens, tokens))
        self._serve()

    def _end_soon(self, caller: _Caller) -> None:
        self._agenda.at(self._agenda.now + HOP_S, partial(self._end, caller))

    def _end(self, caller: _Caller) -> None:
        self._close(caller)
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
        room = WorkerRoom(
            load=self._load,
            unseen_blocks=self._unseen.blocks,
            unseen_requests=self._unseen.requests,
            unseen_prefill_tokens=self._unseen.prefill_tokens,
            own_blocks=self._in_flight_blocks,
        )
        return supply_of([room], self._elsewhere.gateways(self._agenda.now))

    def _hear(self, load: WorkerLoad) -> None:
        self._agenda.at(self._agenda.now + HOP_S, lambda: self._receive(load))

    def _receive(self, load: WorkerLoad) -> None:
        self._load = load
        self._elsewhere.hear(load.gateway_queues)
        self._unseen.receive_report(load.sample_number)
        self._has_refused = False
        self._serve()


def _as_caller(waiter: Waiter) -> _Caller:
    if not isinstance(waiter, _Caller):
        raise TypeError(waiter)
    return waiter


def _kind(arrival: Arrival) -> tuple[str, str]:
    return arrival.tenant, arrival.criticality
