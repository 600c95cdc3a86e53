"""The worker's books over a virtual engine: admission as it is in the worker, without gRPC and without a clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench.overload.doors import watched
from bench.overload.score import Answer
from bench.overload.trace import MAX_OUTPUT_TOKENS, Arrival
from bench.overload.virtual import Agenda, VirtualEngine
from gateway.criticality import rank_of
from gateway.policy.elsewhere import GatewayQueue
from gateway.policy.load import WorkerLoad
from worker.books import AdmissionSettings, Books
from worker.config import WorkerSettings
from worker.engine import EngineFacts
from worker.sim_profile import SimProfile
from worker.waiting_board import WaitingBoard

_REPORT_INTERVAL_S = (0.015, 0.025)


class VirtualWorker:
    """Admits and runs requests, and reports its load to its ``listeners`` as it changes."""

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
        self.board = WaitingBoard(agenda.clock)
        self.sample_number = 0  # of the latest report
        self._feeds: list[_Feed] = []
        self._rng = random.Random(0)
        self._agenda = agenda
        self._engine = engine
        engine.after_step = self._after_step

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
        self._report_soon()

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
            drained_blocks_per_s=ledger.drained_blocks_per_s,
            expected_output_tokens=ledger.usual_output_tokens or 0,
            output_quantile=ledger.output_quantile,
            admissible_requests=room.requests,
            admissible_prompt_tokens=room.prompt_tokens,
            sample_number=self.sample_number,
            tenant_blocks=tuple(ledger.tenant_blocks),
            gateway_queues=tuple(
                GatewayQueue(
                    gateway_id=queue.gateway_id,
                    waiting_tokens=queue.waiting_tokens,
                    first_rank=rank_of(queue.first_criticality),
                    is_first_above_share=queue.is_first_above_share,
                    first_came_at=self._agenda.now - queue.age_s - queue.first_wait_s,
                    told_at=self._agenda.now - queue.age_s,
                    tenant_demands=queue.tenant_demands,
                    above_share_tokens=queue.above_share_tokens,
                )
                for queue in self.board.current()
            ),
        )

    def watch(self, listener: Callable[[WorkerLoad], None]) -> None:
        """Tell ``listener`` of the load whenever it changes, at most every 20 ms or so."""
        self._feeds.append(_Feed(listener=listener, due_at=self._agenda.now))

    def _after_step(self) -> None:
        self.books.after_step()
        self._report_soon()

    def _report_soon(self) -> None:
        for feed in self._feeds:
            if not feed.is_due:
                feed.is_due = True
                self._agenda.at(feed.due_at, partial(self._report, feed))

    def _report(self, feed: _Feed) -> None:
        feed.is_due = False
        feed.due_at = self._agenda.now + self._rng.uniform(*_REPORT_INTERVAL_S)
        feed.listener(self.load())


@dataclass(slots=True, kw_only=True)
class _Feed:
    """The reports to one gateway, in its own rhythm. ``is_due``: the next one will be made at ``due_at``."""

    listener: Callable[[WorkerLoad], None]
    due_at: float
    is_due: bool = False


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
