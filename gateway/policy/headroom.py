"""Room that is kept for those who have a right to it: tenants below their share, and the more critical.

Order alone does not keep a modest tenant's waits short. When somebody greedy has filled the pool, even the first in
line has to wait until blocks come free. So the last few requests' worth of room is not for those who hold more than
their share, nor for a class that others go before; only while there are such others. It may be in any worker's pool.

Blocks are not all: prompts are computed one after the other. So a tenant above its share sends none to a worker before
which more than a few wait.

Tenants may come through other gateways, too. What they hold there the workers tell; what they ask for there the other
gateways do. Without that, each of three would see a third of what a greedy tenant asks for, and might find it modest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.policy.queue import Queue
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import CLASS_COUNT, Waiter

# Tenants that other gateways are told of by name.
_TOLD_TENANTS = 8
OTHERS = ""  # all the rest of them
# How many requests of average size room is kept for while rates are not known.
_UNKNOWN_REQUESTS = 4
# A load is known as the mean of some seconds. For as long as room is short for, it is half as high again by chance.
_MOST_LOAD = 1.5
# Above its share is who holds so many times as much, or asks for it: by chance, too, a tenant holds half as much again.
_GREED = 2.0
# A tenant or class that has sent fewer tokens per second of late, 5 s or so, needs no room kept.
_MIN_ARRIVALS_PER_S = 1.0
_REFRESH_S = 0.2
# Prompts, of average length, that may wait in a worker to which a tenant above its share sends one more, that included.
_PREFILL_LINE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Care:
    """``risk``: the chance with which one that room is kept for may find too little of it left by others of the kind.

    Room is kept for ``most_requests`` of average size at most, and for no more than ``most_share`` of all that is held.
    """

    risk: float
    most_requests: int
    most_share: float

    def tokens(self, load: float | None, *, mean_tokens: float, held_tokens: int) -> int:
        """What to keep: a queue of such ``load`` holds more, a newcomer included, with that chance. None: not known.

        Requests of any length come at random, and so does room: that is M/M/1, whose work is exponentially distributed.
        """
        requests = float(_UNKNOWN_REQUESTS)
        if load is not None:
            requests = float(self.most_requests)
            if _MOST_LOAD * load < 1:
                requests = min(requests, -math.log(self.risk) / (1 - _MOST_LOAD * load))
        return round(min(requests * mean_tokens, self.most_share * held_tokens))


# What is kept stands idle. Beside a tenant above its share that is worth more: it could take all of the rest.
_FOR_CLASSES = _Care(risk=0.05, most_requests=16, most_share=0.1)
_FOR_TENANTS = _Care(risk=0.003, most_requests=24, most_share=0.3)


class Headroom:
    """What requests hold on workers, by tenant, and what may not be taken by whom."""

    def __init__(self, queue: Queue, weights: Mapping[str, float]) -> None:
        self.asked_per_s: Sequence[tuple[str, float]] = ()  # of this gateway, by tenant; empty while there is one
        self._supply = Supply(free_tokens=0, tokens_per_s=None)  # the latest
        self._heard_at = float("-inf")
        self._queue = queue
        self._weights = weights
        self._held: Counter[str] = Counter()  # tokens by tenant, of this gateway's requests
        self._held_tokens = self._held_prompt_tokens = self._held_requests = 0
        self._refreshed_at = float("-inf")
        self._modest_per_s = [0.0] * CLASS_COUNT  # tokens per second that have come from tenants below their share
        self._before_per_s = [0.0] * CLASS_COUNT  # and those of all more critical classes
        self._modest_elsewhere_per_s = 0.0
        self._above_share: frozenset[str] = frozenset()

    def is_stale(self, now: float) -> bool:
        """Whether the supply has to be told again."""
        return now - self._heard_at >= _REFRESH_S

    def hear(self, supply: Supply, now: float) -> None:
        """What the workers have now, who holds it, and who asks for it elsewhere."""
        self._supply, self._heard_at = supply, now

    def take(self, waiter: Waiter) -> None:
        """``waiter`` goes to a worker."""
        self._add(waiter, 1)

    def give_back(self, waiter: Waiter) -> None:
        """What ``waiter`` held is free; it has to have the tokens with which it went."""
        self._add(waiter, -1)
        if not self._held[waiter.tenant]:
            del self._held[waiter.tenant]

    def set_for(self, waiter: Waiter, now: float) -> None:
        """Find what has to stay free beside ``waiter``, and whether its tenant is above its share."""
        waiter.headroom_tokens, waiter.prefill_line_tokens = 0, None
        if not self._held_requests and not self._supply.held_tokens:
            waiter.is_above_share = False
            return
        if now - self._refreshed_at >= _REFRESH_S:
            self._refreshed_at = now
            self._refresh(now)
        waiter.is_above_share = waiter.tenant in self._above_share
        is_owed = self._queue.is_owed(waiter.rank, waiter.tokens)
        before_per_s = 0.0 if is_owed else self._before_per_s[waiter.rank]
        modest_per_s = self._modest_per_s[waiter.rank] if waiter.is_above_share else 0.0
        elsewhere_per_s = self._modest_elsewhere_per_s if waiter.is_above_share else 0.0
        if before_per_s + modest_per_s + elsewhere_per_s < _MIN_ARRIVALS_PER_S:
            return
        mean_tokens, mean_prompt_tokens = float(waiter.tokens), float(waiter.prompt_tokens)
        if self._held_requests:
            mean_tokens = self._held_tokens / self._held_requests
            mean_prompt_tokens = self._held_prompt_tokens / self._held_requests
        load = None
        if rate := self._supply.tokens_per_s:
            # Classes are known of this gateway only: of what comes free they have its share. Tenants are known of all.
            load = before_per_s / max(1e-9, rate * self._supply.held_share) + (modest_per_s + elsewhere_per_s) / rate
        held_tokens = max(self._held_tokens, sum(self._supply.held_tokens.values()))
        care = _FOR_TENANTS if waiter.is_above_share else _FOR_CLASSES
        waiter.headroom_tokens = care.tokens(load, mean_tokens=mean_tokens, held_tokens=held_tokens)
        waiter.mean_tokens = round(mean_tokens)
        if waiter.is_above_share:
            waiter.prefill_line_tokens = round(_PREFILL_LINE * mean_prompt_tokens)

    def _refresh(self, now: float) -> None:
        rates = [
            {tenant: rate for tenant, flow in flows.known() if (rate := flow.asked.per_s(now)) >= _MIN_ARRIVALS_PER_S}
            for flows in self._queue.classes
        ]
        asked: dict[str, float] = {}
        for by_tenant in rates:
            for tenant, per_s in by_tenant.items():
                asked[tenant] = asked.get(tenant, 0.0) + per_s
        elsewhere = self._supply.asked_elsewhere_per_s
        held = {
            tenant: max(self._held[tenant], self._supply.held_tokens.get(tenant, 0))
            for tenant in {*self._held, *self._supply.held_tokens}
        }
        held_tokens, rate = max(1, sum(held.values())), self._supply.tokens_per_s or 0.0
        active = {*held, *asked, *elsewhere} - {OTHERS}
        self.asked_per_s = _told(asked) if len(active) > 1 else ()
        weight = sum(self._weights.get(tenant, 1.0) for tenant in sorted(active))  # in one order, for replay

        def is_above_share(tenant: str) -> bool:
            # What it asks for tells, too: a tenant that is held down to little more than its share fills every gap.
            share = self._weights.get(tenant, 1.0) / weight
            asked_per_s = asked.get(tenant, 0.0) + elsewhere.get(tenant, 0.0)
            return held.get(tenant, 0) > _GREED * share * held_tokens or (
                rate > 0 and asked_per_s > _GREED * share * rate
            )

        above_share = frozenset(tenant for tenant in active if is_above_share(tenant))
        # Where all ask for more than there is, nobody is kept from his share by another.
        self._above_share = frozenset() if above_share == active else above_share
        self._modest_elsewhere_per_s = sum(
            per_s for tenant, per_s in elsewhere.items() if tenant not in self._above_share
        )
        before_per_s = 0.0
        for rank, by_tenant in enumerate(rates):
            self._before_per_s[rank] = before_per_s
            self._modest_per_s[rank] = sum(
                per_s for tenant, per_s in by_tenant.items() if tenant not in self._above_share
            )
            before_per_s += sum(by_tenant.values())

    def _add(self, waiter: Waiter, sign: int) -> None:
        self._held[waiter.tenant] += sign * waiter.tokens
        self._held_tokens += sign * waiter.tokens
        self._held_prompt_tokens += sign * waiter.prompt_tokens
        self._held_requests += sign


def _told(asked: Mapping[str, float]) -> Sequence[tuple[str, float]]:
    """``asked`` as other gateways are told of it: those who ask most, and the sum of all others."""
    by_rate = sorted(asked.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(per_s for _, per_s in by_rate[_TOLD_TENANTS:])
    return (*by_rate[:_TOLD_TENANTS], *(((OTHERS, rest),) if rest else ()))
