"""What the workers have for this gateway, by their reports and by what was sent since."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.policy.load import WorkerLoad
from gateway.policy.wait_forecast import Supply


def supply_of(workers: Iterable[tuple[WorkerLoad, int]]) -> Supply:
    """The room of all workers together: for each its load, and the blocks of jobs that the load cannot know yet."""
    return Supply(
        free_tokens=sum(max(0, load.available_blocks - unseen) * load.block_size for load, unseen in workers),
        tokens_per_s=None,
    )


def first_token_s(loads: Iterable[WorkerLoad], *, prompt_tokens: int) -> float:
    """Seconds from a worker's acceptance to the first token, on the one that is quickest. 0 while none has measured."""
    return min(
        (
            (load.pending_prefill_tokens + prompt_tokens) / load.prefill_tokens_per_s
            if load.prefill_tokens_per_s
            else 0.0
            for load in loads
        ),
        default=0.0,
    )
