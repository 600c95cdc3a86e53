"""What the workers have for this gateway, by their reports and by what was sent since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.policy.elsewhere import GatewayQueue
from gateway.policy.expected_output import ReportedOutput
from gateway.policy.load import WorkerLoad
from gateway.policy.wait_forecast import Supply

# A worker's, until it tunes it.
_DEFAULT_QUANTILE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRoom:
    """One worker. ``unseen_...`` is of jobs that ``load`` cannot know yet, ``own_blocks`` of all of this gateway's."""

    load: WorkerLoad
    unseen_blocks: int
    unseen_requests: int
    unseen_prefill_tokens: int
    own_blocks: int

    @property
    def free_requests(self) -> int | None:
        """How many further jobs it would take; None without bound."""
        bound = self.load.admissible_requests
        return None if bound is None else max(0, bound - self.unseen_requests)

    @property
    def free_prompt_tokens(self) -> int | None:
        """The longest prompt that it would take; None without bound."""
        bound = self.load.admissible_prompt_tokens
        return None if bound is None else max(0, bound - self.unseen_prefill_tokens)

    @property
    def free_tokens(self) -> int:
        """Room that further jobs would find in its cache; none where none would be taken."""
        if self.free_requests == 0:
            return 0
        return max(0, self.load.available_blocks - self.unseen_blocks) * self.load.block_size


def supply_of(workers: Sequence[WorkerRoom], elsewhere: Iterable[GatewayQueue]) -> Supply:
    """All workers together, and what is asked of them ``elsewhere``, in other gateways that were heard of late."""
    drains = [
        worker.load.drained_blocks_per_s * worker.load.block_size
        for worker in workers
        if worker.load.drained_blocks_per_s
    ]
    held = sum(worker.load.reserved_blocks for worker in workers)
    gateways = list(elsewhere)
    asked = dict[str, float]()
    for gateway in gateways:
        for tenant, tokens_per_s in gateway.tenant_demands:
            asked[tenant] = asked.get(tenant, 0.0) + tokens_per_s
    held_tokens = Counter[str]()
    for worker in workers:
        for tenant, blocks in worker.load.tenant_blocks:
            held_tokens[tenant] += blocks * worker.load.block_size
    return Supply(
        free_tokens=sum(worker.free_tokens for worker in workers),
        # Those that have not been full yet are taken for the equals of those that have.
        tokens_per_s=sum(drains) * len(workers) / len(drains) if drains else None,
        free_requests=_sum(worker.free_requests for worker in workers),
        free_prompt_tokens=_sum(worker.free_prompt_tokens for worker in workers),
        prompt_tokens_per_s=sum(worker.load.prefill_tokens_per_s for worker in workers),
        waiting_elsewhere_tokens=sum(gateway.waiting_tokens for gateway in gateways),
        above_share_elsewhere_tokens=sum(gateway.above_share_tokens for gateway in gateways),
        held_tokens=held_tokens,
        asked_elsewhere_per_s=asked,
        held_share=min(1.0, sum(worker.own_blocks for worker in workers) / held) if held else 1.0,
    )


def _sum(bounds: Iterable[int | None]) -> int | None:
    """All of them; None where one is without bound."""
    total = 0
    for bound in bounds:
        if bound is None:
            return None
        total += bound
    return total


def first_token_s(loads: Iterable[WorkerLoad], *, prompt_tokens: int) -> float:
    """Seconds from a worker's acceptance to the first token, on the one that is quickest. 0 while none has measured.

    That is the prefills before it, its own, and the step that all requests of a batch share.
    """
    quickest_s = -1.0
    for load in loads:
        seconds = _first_token_s(load, prompt_tokens)
        if quickest_s < 0 or seconds < quickest_s:
            quickest_s = seconds
    return max(0.0, quickest_s)


def reported_output(loads: Iterable[WorkerLoad]) -> ReportedOutput:
    """The means of what the workers go by; the quantile in hundredths."""
    tokens = learned = told = 0
    quantiles = 0.0
    for load in loads:
        if load.expected_output_tokens:
            learned += 1
            tokens += load.expected_output_tokens
            if load.output_quantile:
                told += 1
                quantiles += load.output_quantile
    return ReportedOutput(
        quantile=round(quantiles / told, 2) if told else _DEFAULT_QUANTILE,
        usual_tokens=round(tokens / learned) if learned else None,
    )


def _first_token_s(load: WorkerLoad, prompt_tokens: int) -> float:
    if not load.prefill_tokens_per_s or not load.decode_tokens_per_s:
        return 0.0
    step_s = max(1, load.running_requests) / load.decode_tokens_per_s
    return (load.pending_prefill_tokens + prompt_tokens) / load.prefill_tokens_per_s + step_s
