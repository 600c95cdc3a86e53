"""The engine and the trace that were measured on an H200 (tests/gpu/overload.sh), and that the bench imitates."""

from __future__ import annotations

from dataclasses import replace

from worker.sim_profile import SimProfile, load_profile

# A KV cache small enough for a trace of half a minute to fill it.
TOTAL_BLOCKS, BATCHED_TOKENS = 4_095, 4_096
# 34 requests per second are half as many again as that engine can take.
RATE, DURATION_S, SEED = 34.0, 25.0, 7
CAPACITY_PER_S = RATE / 1.5
SWEEP = (0.5, 1.0, 1.5, 2.0, 4.0, 10.0)


def measured_engine(profile: str = "h200-llama3-8b-awq") -> SimProfile:
    """The profile in the size in which the trace was measured."""
    return replace(load_profile(profile), total_blocks=TOTAL_BLOCKS, max_batched_tokens=BATCHED_TOKENS)
