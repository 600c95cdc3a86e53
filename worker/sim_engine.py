"""The ``sim`` engine: the behaviour of a GPU engine without the GPU, for thousands of streams at a time.

Tokens come from ``sim_language``, blocks and batches from ``sim_scheduler``, and the time that each step takes from a
profile fitted to a measured machine. It samples nothing: temperature and penalties change no token, and of logit
biases only the greatest does, which makes its token certain, as it does in a real engine.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable

from worker.engine import (
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineLoad,
    GenerationJob,
    TakeOutput,
)
from worker.output_port import OutputPort
from worker.sim_fault import SimFault
from worker.sim_language import SimLanguage
from worker.sim_profile import SimProfile
from worker.sim_scheduler import ScheduledRequest, Scheduler
from worker.sim_stream import SimStream

_LOGGER = logging.getLogger(__name__)

# A step that ends late makes up for it in the next ones, so that the long-run rate is the profile's. A process that was
# stopped, or that is too slow for the profile at all, must not owe time without limit.
_MAX_DEBT_S = 0.25
# The event loop wakes at the next whole millisecond of its selector: half of one late on average.
_TIMER_LATENESS_S = 0.0005


class SimEngine:
    """Implements ``worker.engine.Engine``."""

    def __init__(  # noqa: PLR0913 - clock and sleep are seams for tests
        self,
        profile: SimProfile,
        language: SimLanguage,
        *,
        time_scale: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        fault: SimFault | None = None,
    ) -> None:
        """``time_scale`` is the duration of a simulated second; 0.1 runs ten times as fast as the profile's machine."""
        self._fault = fault
        self._doomed: dict[ScheduledRequest, int] = {}  # with the number of tokens that they do not outlive
        self._profile = profile
        self._language = language
        self._time_scale = time_scale
        self._clock = clock
        self._sleep = sleep
        self._scheduler = Scheduler(profile)
        self._streams: dict[ScheduledRequest, SimStream] = {}
        self._work_came = asyncio.Event()
        self._after_step: Callable[[], None] = lambda: None
        self._steps: asyncio.Task[None] | None = None
        self._step_count = 0
        self._last_step_at = clock()
        self._output_tokens = 0

    async def start(self) -> EngineFacts:
        """Begin to step."""
        self._steps = asyncio.create_task(self._run(), name="sim engine steps")
        self._steps.add_done_callback(self._on_end)
        profile = self._profile
        return EngineFacts(
            name=f"sim {profile.name}",
            block_size=profile.block_size,
            total_blocks=profile.total_blocks,
            kv_pool_tokens=profile.kv_pool_tokens,
            context_length=profile.context_length,
            vocabulary_size=self._language.vocabulary_size,
            max_running_requests=profile.max_running_requests,
            max_batched_tokens=profile.max_batched_tokens,
            supports_seed=True,
            constraint_kinds=(),
            supports_continuation=True,
        )

    async def generate(self, job: GenerationJob, take: TakeOutput) -> None:
        """See ``worker.engine.Engine.generate``."""
        if self._steps is None or self._steps.done():
            raise EngineDeadError("the sim engine is not running")
        if job.constraint is not None:
            raise EngineError("the sim engine obeys no constraint")
        total_tokens = len(job.prompt_token_ids) + job.sampling.max_output_tokens
        if total_tokens > min(self._profile.kv_pool_tokens, self._profile.context_length):
            raise EngineError(f"{total_tokens} tokens of prompt and output do not fit the engine")
        now = self._clock()
        tokens = list(job.computed_token_ids)
        request = ScheduledRequest(
            tokens=tokens,
            prompt_tokens=len(tokens),
            ready_at=now + self._profile.timing.request_overhead_s * self._time_scale,
        )
        stream = SimStream(job, request, self._language, OutputPort(take), submitted_at=now)
        if stream.is_over:
            stream.end_at_once(now)
            await stream.port.run()
            return
        self._streams[request] = stream
        if self._fault is not None and self._fault.is_in(job.prompt_token_ids, self._language):
            self._doomed[request] = len(job.prompt_token_ids) + self._fault.after_tokens
        self._scheduler.add(request)
        self._work_came.set()
        try:
            await stream.port.run()
        finally:
            self._forget(request)

    def load(self) -> EngineLoad:
        """The load after the latest step."""
        scheduler = self._scheduler
        return EngineLoad(
            free_blocks=scheduler.pool.free_blocks,
            reclaimable_blocks=scheduler.pool.reclaimable_blocks,
            running_requests=scheduler.running_requests,
            waiting_requests=scheduler.waiting_requests,
            preemptions=scheduler.preemptions,
            step_count=self._step_count,
            last_step_at=self._last_step_at,
            prompt_tokens_computed=scheduler.prompt_tokens_computed,
            output_tokens_generated=self._output_tokens,
        )

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every step."""
        self._after_step = callback

    async def stop(self) -> None:
        """End all streams with ``EngineDeadError``, and the steps."""
        if self._steps is not None and not self._steps.done():
            self._steps.cancel()
            await asyncio.wait((self._steps,))

    async def _run(self) -> None:
        """Step for ever. The only writer of scheduler and streams beside a job's own beginning and end."""
        due = self._clock()
        while True:
            step = self._scheduler.plan(self._clock())
            if not step.chunks:
                due = await self._wait_for_work()
                continue
            if self._fault is not None and any(
                len(request.tokens) >= self._doomed.get(request, sys.maxsize) for request, _ in step.chunks
            ):
                await self._fault.strike()
            duration_s = self._profile.timing.step_s(
                prefill_tokens=step.prefill_tokens, decode_requests=step.decode_requests
            )
            due = max(due, self._clock() - _MAX_DEBT_S) + duration_s * self._time_scale
            await self._sleep_until(due)
            self._last_step_at = self._clock()
            self._step_count += 1
            for request in self._scheduler.commit(step):
                self._output_tokens += 1
                if self._streams[request].advance(self._last_step_at) is not None:
                    self._scheduler.remove(request)
            self._after_step()

    async def _wait_for_work(self) -> float:
        """Until a request arrives, or until the first one waiting may run; returns when the next step begins."""
        ready_at = self._scheduler.next_ready_at
        if ready_at is None:
            self._work_came.clear()
            await self._work_came.wait()
            return self._clock()
        await self._sleep_until(ready_at)
        return ready_at

    async def _sleep_until(self, due: float) -> None:
        # At least once round the event loop, or a process that is always late would serve nobody.
        await self._sleep(max(0.0, due - self._clock() - _TIMER_LATENESS_S))

    def _on_end(self, steps: asyncio.Task[None]) -> None:
        cause = None if steps.cancelled() else steps.exception()
        if cause is not None:
            _LOGGER.error("the sim engine died", exc_info=cause)
        for stream in self._streams.values():
            stream.port.fail(
                EngineDeadError("the sim engine was stopped" if cause is None else f"it died of {cause!r}")
            )

    def _forget(self, request: ScheduledRequest) -> None:
        self._scheduler.remove(request)
        self._doomed.pop(request, None)
        del self._streams[request]
