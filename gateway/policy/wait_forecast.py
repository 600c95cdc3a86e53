"""How long a request will wait: what leaves before it, over the rate at which room comes free.

Tokens are the unit: those that requests are expected to hold in a KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.policy.fair_flows import FairFlows
from gateway.policy.queue import GUARANTEED_SHARE, Queue
from gateway.policy.waiter import Waiter


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What the workers have for this gateway.

    ``free_tokens`` is room now. ``tokens_per_s`` is the rate at which more comes free, as the workers report it and as
    far as it falls to this gateway; None where they do not tell.
    """

    free_tokens: int
    tokens_per_s: float | None


def predicted_wait_s(waiter: Waiter, queue: Queue, *, free_tokens: int, tokens_per_s: float, now: float) -> float:
    """Seconds from ``now`` until ``waiter``, in the queue or about to enter it, has room.

    More critical requests and those of other tenants that will come in the meantime are reckoned with, at the rates at
    which they have come of late.
    """
    flows = queue.classes[waiter.rank]
    before, beside_per_s = _in_class(waiter, flows, now)
    missing = before + waiter.tokens + waiter.headroom_tokens - free_tokens
    overtaking_per_s = 0.0
    if not queue.is_owed(waiter.rank, before + waiter.tokens):
        missing += sum(queue.classes[rank].tokens for rank in range(waiter.rank))
        overtaking_per_s = sum(queue.classes[rank].arrivals.per_s(now) for rank in range(waiter.rank))
    if missing <= 0:
        return 0.0
    # However many come: a class has its guaranteed share, and a tenant its share of what the class has.
    for_class = max(tokens_per_s - overtaking_per_s, tokens_per_s * GUARANTEED_SHARE)
    own_share = flows.weight(waiter.tenant) / flows.active_weight(waiter.tenant)
    return missing / max(for_class - beside_per_s, for_class * own_share)


def _in_class(waiter: Waiter, flows: FairFlows, now: float) -> tuple[float, float]:
    """Tokens of the class that leave before the waiter, and tokens per second that will come in between."""
    own = flows.flow(waiter.tenant)
    before = own.tokens_before(waiter) if own else 0.0
    starts_at = flows.start_of(waiter.tenant) + before / flows.weight(waiter.tenant)
    beside_per_s = 0.0
    for flow in flows.others(waiter.tenant):
        if flow and flow.head.headroom_tokens and not waiter.headroom_tokens:
            continue  # overtaken, whatever its turn
        start = max(flow.start, flows.virtual_time) if not flow else flow.start
        if start <= starts_at and flow:
            # Those that start before, and the one that straddles.
            before += min(flow.tokens, (starts_at - start) * flow.weight + flow.mean_tokens)
        if start + flow.tokens / flow.weight <= starts_at:
            beside_per_s += flow.arrivals.per_s(now)
    return before, beside_per_s
