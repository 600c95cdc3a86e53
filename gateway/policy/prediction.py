"""Predicts a job's time to first token on a worker, in seconds, from its load report and what has happened since."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.policy.candidate import Candidate
from gateway.policy.demand import Demand

# For fleets in which nobody has measured anything yet. Any value does: all workers are held to the same one.
_UNMEASURED_PREFILL_RATE = 10_000.0  # tokens per second
_UNMEASURED_DECODE_RATE = 1_000.0
# A rate measured on short prompts is the step's overhead, not the worker's speed: only with so much to do does it tell
# one worker from the other. An idle worker is taken for the equal of the best; else it would have to wait for ever to
# show that it is.
_TELLING_TOKENS = 2048
_MIN_RELEASE_RATE = 0.1  # blocks per second; what is slower is no prediction any more
# A worker with changes reports every 20 ms, one without at least once a second.
_REPORT_INTERVAL_S = 1.0
# What a half-full pool is worth: running requests slow one another's steps, and a full pool preempts them.
_PRESSURE_S = 0.05
_MAX_PRESSURE_S = 1.0
# A worker that refused a job has not the room that its report promised.
_DOUBT_S = 1.0


def predicted_ttft_s(candidate: Candidate, demand: Demand, *, best_rate: float) -> float:
    """The prefills before the job's own, its own less what is cached, and the wait for the blocks that are missing.

    ``best_rate``: prompt tokens per second of the worker that has measured most. A report that is overdue says nothing
    of the time since: the worker may have stood still for all of it.
    """
    load = candidate.load
    pending = load.pending_prefill_tokens + candidate.unseen_prefill_tokens
    own = max(1, demand.prompt_tokens - candidate.cached_tokens)
    is_measured_now = load.prefill_tokens_per_s and load.pending_prefill_tokens >= _TELLING_TOKENS
    rate = load.prefill_tokens_per_s if is_measured_now else max(load.prefill_tokens_per_s, best_rate)
    prefill_s = (pending + own) / rate
    overdue_s = max(0.0, candidate.load_age_s - _REPORT_INTERVAL_S)
    doubt_s = _DOUBT_S if candidate.is_doubtful else 0.0
    return prefill_s + _memory_s(candidate, demand) + overdue_s + doubt_s


def best_prefill_rate(candidates: Iterable[Candidate]) -> float:
    """Prompt tokens per second of the worker that has measured most."""
    best = 0.0
    for candidate in candidates:
        best = max(best, candidate.load.prefill_tokens_per_s)
    return best or _UNMEASURED_PREFILL_RATE


def _memory_s(candidate: Candidate, demand: Demand) -> float:
    load = candidate.load
    left = candidate.room_blocks - candidate.blocks_for(demand.prompt_tokens)
    # Where the rate is not known: requests give their blocks back at least as fast as they produce tokens to fill them.
    decode_rate = load.decode_tokens_per_s or _UNMEASURED_DECODE_RATE
    release_rate = max(_MIN_RELEASE_RATE, load.released_blocks_per_s or decode_rate / load.block_size)
    wait_s = max(0, -left) / release_rate
    free_share = max(0, left) / max(1, load.total_blocks)
    pressure_s = _PRESSURE_S * (1 - free_share) / free_share if free_share else _MAX_PRESSURE_S
    return wait_s + min(_MAX_PRESSURE_S, pressure_s)
