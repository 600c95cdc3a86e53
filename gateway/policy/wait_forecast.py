"""How long a request will wait: what leaves before it, over the rate at which room comes free.

Tokens are the unit: those that requests are expected to hold in a KV cache. A worker can be full in other ways, too: of
requests, which come free with the tokens that they hold, and of prompts that wait to be computed, at a rate of their
own. The longest of the waits counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.policy.fair_flows import FairFlows
from gateway.policy.queue import GUARANTEED_SHARE, Queue
from gateway.policy.waiter import Waiter


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What the workers have, and who else asks for it.

    ``free_tokens`` is room now, ``tokens_per_s`` the rate at which more comes free, as the workers have measured it
    while they were full; None before. ``free_requests`` and ``free_prompt_tokens`` are what they would take blocks
    aside, None without bound; prompts are computed at ``prompt_tokens_per_s``, 0 while not known.

    ``waiting_elsewhere_tokens`` wait for the same in other gateways, of which ``above_share_elsewhere_tokens`` are of
    tenants above their share. Of all that is held ``held_share`` is held by requests of this one. ``held_tokens`` is
    what tenants hold, through all gateways; empty where it is one tenant. ``asked_elsewhere_per_s`` is what they ask of
    other gateways, in tokens.
    """

    free_tokens: int
    tokens_per_s: float | None
    free_requests: int | None = None
    free_prompt_tokens: int | None = None
    prompt_tokens_per_s: float = 0.0
    waiting_elsewhere_tokens: int = 0
    above_share_elsewhere_tokens: int = 0
    held_share: float = 1.0
    held_tokens: Mapping[str, int] = field(default_factory=dict)
    asked_elsewhere_per_s: Mapping[str, float] = field(default_factory=dict)

    def share_of(self, own_tokens: int) -> float:
        """The part of what comes free that goes to a gateway in which ``own_tokens`` wait."""
        return own_tokens / max(1, own_tokens + self.waiting_elsewhere_tokens)

    def modest_share_of(self, own_tokens: int) -> float:
        """As ``share_of``, among those that wait for tenants not above their share. They go before all others."""
        return own_tokens / max(1, own_tokens + self.waiting_elsewhere_tokens - self.above_share_elsewhere_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Seconds until a request's turn comes, all before it having gone, and until it has room, its own having come free.

    None while rates are unknown. The first is the same for short and long requests.
    """

    turn_s: float | None
    room_s: float | None


def forecast(waiter: Waiter, queue: Queue, supply: Supply, now: float) -> Forecast:
    """From ``now`` on, for ``waiter`` in the queue or about to enter it.

    More critical requests and those of other tenants that will come in the meantime are reckoned with, at the rates at
    which they have come of late.
    """
    own = queue.classes[waiter.rank].flow(waiter.tenant)
    return _forecast(waiter, queue, supply, now, own_before=own.tokens_before(waiter) if own else 0.0)


def forecast_of_return(waiter: Waiter, queue: Queue, supply: Supply, now: float) -> Forecast:
    """As ``forecast``, for ``waiter`` that was sent away from the queue, and comes again behind all that are in it.

    What is free did not help it before: workers have it in pieces that are too small, or keep it for others. So its own
    room has to come free, too.
    """
    own = queue.classes[waiter.rank].flow(waiter.tenant)
    return _forecast(waiter, queue, replace(supply, free_tokens=0), now, own_before=own.tokens if own else 0.0)


def _forecast(waiter: Waiter, queue: Queue, supply: Supply, now: float, *, own_before: float) -> Forecast:
    """Of its tenant's requests, ``own_before`` tokens leave before ``waiter``."""
    flows = queue.classes[waiter.rank]
    others_before, beside_per_s = _others(waiter, flows, now, own_before)
    before, overtaking_per_s = own_before + others_before, 0.0
    if not queue.is_owed(waiter.rank, before + waiter.tokens):
        before += sum(queue.classes[rank].tokens for rank in range(waiter.rank))
        overtaking_per_s = sum(queue.classes[rank].arrivals.per_s(now) for rank in range(waiter.rank))
    tokens_per_s = None
    own_tokens = queue.tokens + (0 if waiter.is_waiting else waiter.tokens)
    if waiter.is_above_share:
        share = supply.share_of(own_tokens)
    else:
        share = supply.modest_share_of(max(waiter.tokens, own_tokens - queue.above_share_tokens))
    if supply.tokens_per_s is not None:
        # However many come: a class has its guaranteed share, and a tenant its share of what the class has.
        for_class = max(supply.tokens_per_s * share - overtaking_per_s, supply.tokens_per_s * share * GUARANTEED_SHARE)
        own_share = flows.weight(waiter.tenant) / flows.active_weight(waiter.tenant)
        tokens_per_s = max(for_class - beside_per_s, for_class * own_share)
    missing = before + waiter.headroom_tokens - _free_tokens(waiter, queue, supply)
    prompts_before = before * queue.prompt_tokens / queue.tokens if queue.tokens else 0.0
    # Its own room takes its own part of what comes free; the others have theirs before its turn.
    return Forecast(
        turn_s=_longer(
            _kv_s(missing + waiter.tokens * (1 - share), tokens_per_s),
            _prefill_s(prompts_before + waiter.prompt_tokens * (1 - share), supply, share),
        ),
        room_s=_longer(
            _kv_s(missing + waiter.tokens, tokens_per_s),
            _prefill_s(prompts_before + waiter.prompt_tokens, supply, share),
        ),
    )


def _free_tokens(waiter: Waiter, queue: Queue, supply: Supply) -> float:
    """Tokens that can be had now: no more than as many requests hold as are still taken."""
    if supply.free_requests is None:
        return supply.free_tokens
    mean_tokens = (queue.tokens + waiter.tokens) / (len(queue) + 1)
    return min(supply.free_tokens, supply.free_requests * mean_tokens)


def _kv_s(missing: float, tokens_per_s: float | None) -> float | None:
    """How long so many tokens take to come free."""
    if missing <= 0:
        return 0.0
    return None if tokens_per_s is None else missing / tokens_per_s


def _prefill_s(prompt_tokens: float, supply: Supply, share: float) -> float:
    """How long it takes until so many tokens of prompts would be taken."""
    if supply.free_prompt_tokens is None or not supply.prompt_tokens_per_s:
        return 0.0
    return max(0.0, (prompt_tokens - supply.free_prompt_tokens) / (supply.prompt_tokens_per_s * share))


def _longer(kv_s: float | None, prefill_s: float) -> float | None:
    return None if kv_s is None else max(kv_s, prefill_s)


def _others(waiter: Waiter, flows: FairFlows, now: float, own_before: float) -> tuple[float, float]:
    """Tokens of other tenants of the class that leave before ``waiter``, and those per second that will come between.

    ``own_before`` tokens of its own tenant do, too.
    """
    before = beside_per_s = 0.0
    starts_at = flows.start_of(waiter.tenant) + own_before / flows.weight(waiter.tenant)
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
