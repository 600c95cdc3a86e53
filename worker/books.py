"""The books of one engine: ledger, pace and what tunes them, put together. Pure; the clock is passed in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from worker.engine import EngineFacts, EngineLoad
from worker.feed import Feed
from worker.ledger import Capacity, Ledger
from worker.output_lengths import OutputLengths
from worker.overcommit import Overcommit, PoolUse
from worker.pace import Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionSettings:
    """Those of ``WorkerSettings`` that the books go by."""

    output_quantile: float
    max_waiting_requests: int
    max_prefill_backlog_s: float


class Books:
    """``ledger`` says what may go in, ``pace`` how fast it comes out."""

    def __init__(
        self,
        facts: EngineFacts,
        engine_load: Callable[[], EngineLoad],
        settings: AdmissionSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine_load = engine_load
        self._lengths = OutputLengths(quantile=settings.output_quantile)
        self._overcommit = Overcommit(quantile=settings.output_quantile, clock=clock)
        self._feed = Feed(
            step_tokens=facts.max_batched_tokens,
            max_requests=settings.max_waiting_requests,
            max_backlog_s=settings.max_prefill_backlog_s,
        )
        capacity = Capacity(
            total_blocks=facts.total_blocks,
            block_size=facts.block_size,
            max_running_requests=facts.max_running_requests,
        )
        self.ledger = Ledger(capacity, self._lengths, self._feed, clock)
        self.pace = Pace(self.ledger, engine_load, clock, full_step_tokens=facts.max_batched_tokens)

    def after_step(self) -> None:
        """The engine has completed a step."""
        self.pace.after_step()
        self._feed.prefill_tokens_per_s = self.pace.prefill_tokens_per_s
        load, total_blocks = self._engine_load(), self.ledger.capacity.total_blocks
        self._overcommit.observe(
            PoolUse(
                used_blocks=total_blocks - load.free_blocks,
                total_blocks=total_blocks,
                preemptions=load.preemptions,
                is_full=self.ledger.is_full,
            )
        )
        self._lengths.quantile = self._overcommit.quantile
