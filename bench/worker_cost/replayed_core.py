"""vLLM's engine process without an engine: steps that were made beforehand, at a steady pace."""

from __future__ import annotations

import asyncio
import random
import time
from types import SimpleNamespace
from typing import Any

from vllm.v1.engine import EngineCoreEvent, EngineCoreEventType, EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.metrics.stats import PrefillStats, SchedulerStats
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from bench.worker_cost.streams import PROMPT_TOKENS

_STEPS_PER_S = 75.0
_FIRST_ORDINARY_TOKEN = 100
# The first steps begin streams and the last ones end them.
_EDGE_STEPS = 5


class ReplayedCore:
    """In place of vLLM's client of its engine. Answers short requests at once, and long ones when all are there."""

    def __init__(self, vllm_config: Any, *, streams: int, steps: int) -> None:
        """All ``streams`` get ``steps`` tokens each; any other request has to be shorter."""
        self.engine_ranks_managed = [0]
        self.resources = SimpleNamespace(engine_dead=False)
        self.cpu_us_per_token = 0.0  # once all streams have ended
        self._streams, self._steps = streams, steps
        self._vocabulary = vllm_config.model_config.get_vocab_size()
        self._decoder = MsgpackDecoder(EngineCoreOutputs)
        self._rng = random.Random(0)
        self._request_ids: list[str] = []
        self._outputs: asyncio.Queue[Any] = asyncio.Queue()
        self._replaying: asyncio.Task[None] | None = None
        vllm_config.cache_config.num_gpu_blocks = 100_000

    async def add_request_async(self, request: Any) -> None:
        """A request, by vLLM's own id."""
        steps = request.sampling_params.max_tokens
        if steps < self._steps:
            for step in range(steps):
                self._outputs.put_nowait(self._encoded([request.request_id], step, steps))
            return
        self._request_ids.append(request.request_id)
        if len(self._request_ids) == self._streams:
            self._replaying = asyncio.create_task(self._replay())

    async def get_output_async(self) -> Any:
        """The next step, decoded as vLLM's client does it."""
        return self._decoder.decode(await self._outputs.get())

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        """Nothing ends early here."""

    async def get_supported_tasks_async(self) -> tuple[str, ...]:
        """What vLLM asks each model."""
        return ("generate",)

    def shutdown(self, timeout: float | None = None) -> None:
        """There is no process."""

    async def _replay(self) -> None:
        steps = [self._encoded(self._request_ids, step, self._steps) for step in range(self._steps)]
        due, begun = time.monotonic(), 0.0
        for number, step in enumerate(steps):
            due += 1 / _STEPS_PER_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if number == _EDGE_STEPS:
                begun = time.process_time()
            if number == self._steps - _EDGE_STEPS:
                tokens = self._streams * (self._steps - 2 * _EDGE_STEPS)
                self.cpu_us_per_token = 1e6 * (time.process_time() - begun) / tokens
            self._outputs.put_nowait(step)

    def _encoded(self, request_ids: list[str], step: int, steps: int) -> Any:
        is_first, is_last = step == 0, step == steps - 1
        outputs = [
            EngineCoreOutput(
                request_id=request_id,
                new_token_ids=[self._rng.randrange(_FIRST_ORDINARY_TOKEN, self._vocabulary)],
                finish_reason=FinishReason.LENGTH if is_last else None,
            )
            for request_id in request_ids
        ]
        for output in outputs if is_first else ():
            output.events = list(map(EngineCoreEvent.new_event, EngineCoreEventType))[:2]
            output.prefill_stats = PrefillStats(num_prompt_tokens=PROMPT_TOKENS, num_computed_tokens=PROMPT_TOKENS)
        stats = SchedulerStats(num_running_reqs=len(request_ids), kv_cache_usage=0.1)
        timestamp = 1.0 + step / _STEPS_PER_S  # by the engine's own clock
        return MsgpackEncoder().encode(EngineCoreOutputs(outputs=outputs, scheduler_stats=stats, timestamp=timestamp))
