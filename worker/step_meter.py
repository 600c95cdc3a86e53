"""Adds up what an engine tells after each of its steps, into an ``EngineLoad``. Pure: time is passed in."""

from __future__ import annotations

from worker.engine import EngineLoad


class StepMeter:
    """Load after the latest step. ``total_blocks`` is the size of the KV pool."""

    def __init__(self, total_blocks: int, now: float) -> None:
        """``now`` is the worker's monotonic clock, seconds."""
        self._total_blocks = total_blocks
        self._free_blocks = total_blocks
        self._running_requests = 0
        self._waiting_requests = 0
        self._preemptions = 0
        self._step_count = 0
        self._last_step_at = now
        self._prompt_tokens = 0
        self._output_tokens = 0

    def record_step(self, now: float) -> None:
        """The engine has completed a step."""
        self._step_count += 1
        self._last_step_at = now

    def record_requests(self, *, kv_usage: float, running: int, waiting: int) -> None:
        """``kv_usage`` is 1 - free blocks / all blocks, from 0 to 1."""
        # Exact, since usage is a quotient of two integers far below 2**53.
        self._free_blocks = round((1.0 - kv_usage) * self._total_blocks)
        self._running_requests = running
        self._waiting_requests = waiting

    def record_work(self, *, prompt_tokens: int, output_tokens: int, preemptions: int) -> None:
        """What the step computed, and how many requests it threw out of the batch for want of blocks."""
        self._prompt_tokens += prompt_tokens
        self._output_tokens += output_tokens
        self._preemptions += preemptions

    def load(self) -> EngineLoad:
        """The load after the latest step."""
        return EngineLoad(
            free_blocks=self._free_blocks,
            reclaimable_blocks=0,  # vLLM counts blocks that hold reusable prefixes as free, and does not tell how many
            running_requests=self._running_requests,
            waiting_requests=self._waiting_requests,
            preemptions=self._preemptions,
            step_count=self._step_count,
            last_step_at=self._last_step_at,
            prompt_tokens_computed=self._prompt_tokens,
            output_tokens_generated=self._output_tokens,
        )
