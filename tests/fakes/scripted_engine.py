"""An engine that does what a test tells it, behind the worker's ``Engine`` protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from worker.engine import (
    ConstraintKind,
    EngineDeadError,
    EngineFacts,
    EngineFinish,
    EngineLoad,
    EngineOutput,
    FinishReason,
    GenerationJob,
    TakeOutput,
)

STOPPED = EngineOutput(finish=EngineFinish(reason=FinishReason.STOP))

FACTS = EngineFacts(
    name="scripted",
    block_size=16,
    total_blocks=64,
    kv_pool_tokens=1024,
    context_length=512,
    vocabulary_size=460,
    max_running_requests=8,
    max_batched_tokens=512,
    supports_seed=False,
    constraint_kinds=tuple(ConstraintKind),
    supports_continuation=True,
)


class ScriptedEngine:
    """Streams ``script`` for every job, and then raises ``error``, or hangs while ``hangs``.

    It obeys constraints where it says so: its worker starts a compiler then, which takes seconds.
    """

    def __init__(
        self,
        script: Sequence[EngineOutput] = (STOPPED,),
        *,
        error: Exception | None = None,
        hangs: bool = False,
        obeys_constraints: bool = False,
    ) -> None:
        self.script = script
        self.error = error
        self.hangs = hangs
        self.facts = FACTS if obeys_constraints else replace(FACTS, constraint_kinds=())
        self.is_dead = False
        self.jobs: list[GenerationJob] = []
        self.aborted: list[str] = []
        self.running = 0
        self.idle = asyncio.Event()
        self._step_count = 0
        self._after_step: Callable[[], None] = lambda: None

    async def start(self) -> EngineFacts:
        return self.facts

    async def generate(self, job: GenerationJob, take: TakeOutput) -> None:
        if job.job_id.startswith("warm-up"):
            take(STOPPED)
            return
        self.jobs.append(job)
        self.running += 1
        try:
            for output in self.script:
                self.step()
                lag = take(output)
                if lag is not None:
                    await lag()
            if self.hangs:
                await asyncio.Event().wait()
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.aborted.append(job.job_id)
            raise
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()

    def step(self) -> None:
        self._step_count += 1
        self._after_step()

    def load(self) -> EngineLoad:
        if self.is_dead:
            raise EngineDeadError("dead by script")
        return EngineLoad(
            free_blocks=FACTS.total_blocks,
            reclaimable_blocks=0,
            running_requests=self.running,
            waiting_requests=0,
            preemptions=0,
            step_count=self._step_count,
            last_step_at=time.monotonic(),
            prompt_tokens_computed=0,
            output_tokens_generated=0,
        )

    def on_step(self, callback: Callable[[], None]) -> None:
        self._after_step = callback

    async def stop(self) -> None:
        pass
