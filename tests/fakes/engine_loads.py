"""Loads of engines."""

from __future__ import annotations

from typing import Final

from worker.engine import EngineLoad

# Of a hundred blocks, and never used.
IDLE: Final = EngineLoad(
    free_blocks=100,
    reclaimable_blocks=0,
    running_requests=0,
    waiting_requests=0,
    preemptions=0,
    step_count=0,
    last_step_at=0.0,
    prompt_tokens_computed=0,
    output_tokens_generated=0,
)
