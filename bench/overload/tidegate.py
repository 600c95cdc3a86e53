"""Tidegate's own policies in virtual time: the gateway's waiting line before the worker's books.

What gRPC and asyncio do between them is imitated by delays: a hop in each direction, and load reports that lag.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench.overload.doors import watched
from bench.overload.score import Answer
from bench.overload.trace import MAX_OUTPUT_TOKENS, Arrival
from bench.overload.virtual import Agenda, VirtualEngine
from gateway.config import GatewaySettings
from gateway.policy.expected_output import ExpectedOutput
from gateway.policy.load import WorkerLoad
from gateway.policy.supply import WorkerRoom, supply_of
from gateway.policy.unseen_work import Sent, UnseenWork
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from gateway.policy.waiting_line import Refusal, WaitingLine
from worker.books import AdmissionSettings, Books
from worker.config import WorkerSettings
from worker.engine import EngineFacts
from worker.ledger import AtCapacityError
from worker.sim_profile import SimProfile

HOP_S = 0.001
_REPORT_INTERVAL_S = 0.02
_MODEL = "sim"
_MAX_WAIT_S: float = GatewaySettings.model_fields["max_wait_s"].default
_RANKS = ("CRITICAL_PLUS", "CRITICAL", "SHEDDABLE_PLUS", "SHEDDABLE")


@dataclass(slots=True, eq=False, kw_only=True)
class _Caller(Waiter):
    """A request in the gateway's line, and at its worker."""

    arrival: Arrival
    answer: Answer
    sent: Sent | None = None


class Worker:
    """The worker's books over a virtual engine; its reports reach the gateway late."""

    def __init__(self, agenda: Agenda, engine: VirtualEngine, profile: SimProfile) -> None:
        settings = WorkerSettings()
        self.books = Books(
            facts_of(profile),
            engine.load,
            AdmissionSettings(
                output_quantile=settings.output_quantile,
                max_waiting_requests=settings.max_waiting_requests,
                max_prefill_backlog_s=settings.max_prefill_backlog_s,
            ),
            agenda.clock,
        )
        self._agenda = agenda
        self._engine = engine
        self.sample_number = 0  # of the latest report

    def generate(self, arrival: Arrival, answer: Answer, on_end: Callable[[], None]) -> None:
        """Admit and run a request. Raises ``AtCapacityError``."""
        books, agenda = self.books, self._agenda
        had_work = books.pace.has_work
        reservation = books.ledger.admit(
            tenant=arrival.tenant, prompt_tokens=arrival.prompt_tokens, max_output_tokens=MAX_OUTPUT_TOKENS
        )
        books.pace.give_work(had_work=had_work)

        def after_token(is_last: bool) -> None:  # noqa: FBT001 - the engine calls it so
            books.ledger.begin(reservation, cached_tokens=0)
            books.ledger.extend(reservation, 1)
            if is_last:
                books.ledger.release(reservation, is_complete=True)
                on_end()

        self._engine.submit(watched(arrival, answer, agenda, after_token))

    def load(self) -> WorkerLoad:
        """What a report says now."""
        self.sample_number += 1
        ledger, pace, load = self.books.ledger, self.books.pace, self._engine.load()
        room = ledger.room
        return WorkerLoad(
            received_at=self._agenda.now,
            block_size=ledger.capacity.block_size,
            total_blocks=ledger.capacity.total_blocks,
            free_blocks=load.free_blocks,
            reserved_blocks=ledger.reserved_blocks,
            running_requests=load.running_requests,
            pending_prefill_tokens=ledger.pending_prefill_tokens,
            prefill_tokens_per_s=pace.prefill_tokens_per_s,
            decode_tokens_per_s=pace.decode_tokens_per_s,
            is_draining=False,
            released_blocks_per_s=ledger.released_blocks_per_s,
            expected_output_tokens=ledger.usual_output_tokens or 0,
            admissible_requests=room.requests,
            admissible_prompt_tokens=room.prompt_tokens,
            sample_number=self.sample_number,
        )


class Tidegate:
    """One gateway with one worker."""

    def __init__(self, agenda: Agenda, engine: VirtualEngine, profile: SimProfile) -> None:
        self.worker = Worker(agenda, engine, profile)
        self._agenda = agenda
        self._line = WaitingLine(max_bytes=64 * 2**20, max_wait_s=_MAX_WAIT_S, weights={}, rng=random.Random(0))
        self._expected = ExpectedOutput()
        self._load = self.worker.load()
        self._unseen = UnseenWork(self._load.sample_number)
        self._in_flight_blocks = 0
        self._has_refused = False
        self._reported_at = 0.0
        self._is_report_due = False
        self._refused: list[tuple[int, Answer]] = []
        engine.after_step = self._after_step

    def arrive(self, arrival: Arrival, answer: Answer) -> None:
        """A client's call; what is measured at the client is a hop later than what happens here."""
        self._agenda.at(self._agenda.now + HOP_S, lambda: self._enter(arrival, answer))

    def _enter(self, arrival: Arrival, answer: Answer) -> None:
        now = self._agenda.now
        expected = self._expected.expect(
            model=_MODEL,
            tenant=arrival.tenant,
            prompt_tokens=arrival.prompt_tokens,
            max_output_tokens=MAX_OUTPUT_TOKENS,
            reported=self._load.expected_output_tokens,
        )
        caller = _Caller(
            tenant=arrival.tenant,
            rank=_RANKS.index(arrival.criticality),
            tokens=arrival.prompt_tokens + expected,
            size_bytes=4 * arrival.prompt_tokens,
            arrived_at=now,
            deadline_at=now + 600.0,
            leaves_at=now + _MAX_WAIT_S,
            arrival=arrival,
            answer=answer,
        )
        outcome = self._line.offer(caller, self._supply(), now)
        if isinstance(outcome, Refusal):
            self._refuse(caller, outcome.retry_after_s, has_waited=False)
            self._refused.append((self._line.queue.last_number, answer))
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
        expiry_at = self._line.queue.next_expiry_at
        if expiry_at is not None:
            self._agenda.at(expiry_at, lambda: self._serve() if self._line.queue.next_expiry_at == expiry_at else None)

    def _send(self, waiter: Waiter) -> bool:
        """The gateway's lease: a place for the request, if the worker seems to have room."""
        if not isinstance(waiter, _Caller):
            raise TypeError(waiter)
        blocks = -(-waiter.tokens // self._load.block_size)
        if not self._has_room(waiter):
            return False
        waiter.sent = self._unseen.send(blocks=blocks, prefill_tokens=waiter.arrival.prompt_tokens)
        self._in_flight_blocks += blocks
        self._agenda.at(self._agenda.now + HOP_S, lambda: self._reach_worker(waiter))
        return True

    def _reach_worker(self, caller: _Caller) -> None:
        at = self._agenda.now + HOP_S
        try:
            self.worker.generate(caller.arrival, caller.answer, partial(self._end_soon, caller))
        except AtCapacityError as error:
            tokens = error.refusal.needed_blocks * self._load.block_size
            self._agenda.at(at, lambda: self._come_back(caller, tokens))
            return
        sample_number = self.worker.sample_number
        self._agenda.at(at, lambda: self._admit(caller, sample_number))
        self._note_start(caller)
        self._report_soon()

    def _admit(self, caller: _Caller, sample_number: int) -> None:
        if caller.sent:
            self._unseen.admit(caller.sent, sample_number)

    def _has_room(self, caller: _Caller) -> bool:
        """As ``gateway.workers.seat.Seat.has_room``."""
        load, unseen, prompt_tokens = self._load, self._unseen, caller.arrival.prompt_tokens
        spare_tokens = caller.headroom_tokens if load.reserved_blocks or unseen.blocks else 0
        blocks = -(-(caller.tokens + spare_tokens) // load.block_size)
        has_place = load.admissible_requests is None or unseen.requests < load.admissible_requests
        has_time = (
            load.admissible_prompt_tokens is None
            or prompt_tokens + unseen.prefill_tokens <= load.admissible_prompt_tokens
        )
        return not self._has_refused and has_place and has_time and blocks <= load.available_blocks - unseen.blocks

    def _close(self, caller: _Caller) -> None:
        if caller.sent:
            self._unseen.end(caller.sent)
            self._in_flight_blocks -= caller.sent.blocks

    def _come_back(self, caller: _Caller, tokens: int) -> None:
        self._close(caller)
        self._has_refused = True
        self._line.put_back(caller, self._agenda.now, tokens=max(caller.tokens, tokens))
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
        self._line.released(caller, arrival.prompt_tokens + arrival.output_tokens, self._agenda.now)
        self._serve()

    def _refuse(self, waiter: Waiter, hint_s: float, *, has_waited: bool) -> None:
        if not isinstance(waiter, _Caller):
            raise TypeError(waiter)
        waiter.answer.refused_at = self._agenda.now + HOP_S
        waiter.answer.hint_s = hint_s
        waiter.answer.has_waited = has_waited

    def _note_start(self, caller: _Caller) -> None:
        """Whoever was refused before ``caller`` came would have started by now."""
        now = self._agenda.now
        while self._refused and self._refused[0][0] < caller.number:
            _, answer = self._refused.pop(0)
            answer.needed_wait_s = now - answer.arrival_s

    def _supply(self) -> Supply:
        return supply_of(
            [WorkerRoom(load=self._load, unseen_blocks=self._unseen.blocks, own_blocks=self._in_flight_blocks)]
        )

    def _after_step(self) -> None:
        self.worker.books.after_step()
        self._report_soon()

    def _report_soon(self) -> None:
        if not self._is_report_due:
            self._is_report_due = True
            self._agenda.at(self._reported_at + _REPORT_INTERVAL_S, self._report)

    def _report(self) -> None:
        self._is_report_due = False
        self._reported_at = self._agenda.now
        load = self.worker.load()
        self._agenda.at(self._agenda.now + HOP_S, lambda: self._receive(load))

    def _receive(self, load: WorkerLoad) -> None:
        self._load = load
        self._unseen.receive_report(load.sample_number)
        self._has_refused = False
        self._serve()


def facts_of(profile: SimProfile) -> EngineFacts:
    """What the sim engine says of itself, as far as the books read it."""
    return EngineFacts(
        name=profile.name,
        block_size=profile.block_size,
        total_blocks=profile.total_blocks,
        kv_pool_tokens=profile.kv_pool_tokens,
        context_length=profile.context_length,
        vocabulary_size=1,
        max_running_requests=profile.max_running_requests,
        max_batched_tokens=profile.max_batched_tokens,
        supports_seed=True,
        constraint_kinds=(),
    )
