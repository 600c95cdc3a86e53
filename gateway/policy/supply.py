"""What the workers have for this gateway, by their reports and by what was sent since."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.policy.load import WorkerLoad
from gateway.policy.wait_forecast import Supply

# Of its blocks, less than which a pool is full: its rates tell what it can do, and not what it is asked for.
_FULL_SHARE = 0.05
# Of a worker where this gateway has nothing: there is one other gateway at least.
_UNKNOWN_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRoom:
    """One worker. ``unseen_blocks``: of jobs that ``load`` cannot know yet; ``own_blocks``: of all this gateway's."""

    load: WorkerLoad
    unseen_blocks: int
    own_blocks: int

    @property
    def free_blocks(self) -> int:
        """Blocks that a further job would find."""
        return max(0, self.load.available_blocks - self.unseen_blocks)

    @property
    def own_tokens_per_s(self) -> float:
        """What comes free for this gateway: its share of the whole is that of the blocks that it holds.

        While nothing has ended, requests give back at least what is generated to fill them.
        """
        load = self.load
        share = min(1.0, self.own_blocks / max(1, load.reserved_blocks)) if self.own_blocks else _UNKNOWN_SHARE
        return share * max(load.released_blocks_per_s * load.block_size, load.decode_tokens_per_s)


def supply_of(workers: Sequence[WorkerRoom]) -> Supply:
    """All workers together."""
    total = sum(worker.load.total_blocks for worker in workers)
    is_full = sum(worker.free_blocks for worker in workers) <= _FULL_SHARE * total
    tokens_per_s = sum(worker.own_tokens_per_s for worker in workers)
    return Supply(
        free_tokens=sum(worker.free_blocks * worker.load.block_size for worker in workers),
        tokens_per_s=tokens_per_s if is_full and tokens_per_s else None,
    )


def first_token_s(loads: Iterable[WorkerLoad], *, prompt_tokens: int) -> float:
    """Seconds from a worker's acceptance to the first token, on the one that is quickest. 0 while none has measured.

    That is the prefills before it, its own, and the step that all requests of a batch share.
    """
    return min((_first_token_s(load, prompt_tokens) for load in loads), default=0.0)


def reported_output_tokens(loads: Iterable[WorkerLoad]) -> int | None:
    """The output that the workers reckon an average request with; None while none has learned."""
    reported = [load.expected_output_tokens for load in loads if load.expected_output_tokens]
    return round(sum(reported) / len(reported)) if reported else None


def _first_token_s(load: WorkerLoad, prompt_tokens: int) -> float:
    if not load.prefill_tokens_per_s or not load.decode_tokens_per_s:
        return 0.0
    step_s = max(1, load.running_requests) / load.decode_tokens_per_s
    return (load.pending_prefill_tokens + prompt_tokens) / load.prefill_tokens_per_s + step_s
