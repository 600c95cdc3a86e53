"""Room that is kept for those who have a right to it: tenants below their share, and the more critical.

Order alone does not keep a modest tenant's waits short. When somebody greedy has filled the pool, even the first in
line has to wait until blocks come free. So the last few requests' worth of room is not for those who hold more than
their share, nor for a class that others go before; only while there are such others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from gateway.policy.queue import Queue
from gateway.policy.waiter import CLASS_COUNT, Waiter

# The chance with which one that room is kept for may find it taken by others of the kind.
_RISK = 0.01
# How many requests of average size room is kept for, at most and while rates are not known; and of all that is held.
_MAX_REQUESTS, _UNKNOWN_REQUESTS = 16, 4
_MAX_SHARE = 0.1
# Who holds so much more than its share is greedy.
_GREED = 1.25
# A tenant or class that has sent fewer tokens per second of late, 5 s or so, needs no room kept.
_MIN_ARRIVALS_PER_S = 1.0
_REFRESH_S = 0.2


class Headroom:
    """What this gateway's requests hold on workers, by tenant, and what may not be taken by whom."""

    def __init__(self, queue: Queue, weights: Mapping[str, float]) -> None:
        self._queue = queue
        self._weights = weights
        self._held: Counter[str] = Counter()  # tokens by tenant
        self._held_tokens = 0
        self._held_requests = 0
        self._refreshed_at = float("-inf")
        self._modest_per_s = [0.0] * CLASS_COUNT  # tokens per second that have come from tenants that are not greedy
        self._before_per_s = [0.0] * CLASS_COUNT  # and those of all more critical classes
        self._greedy: frozenset[str] = frozenset()

    def take(self, waiter: Waiter) -> None:
        """``waiter`` goes to a worker."""
        self._add(waiter, 1)

    def give_back(self, waiter: Waiter) -> None:
        """What ``waiter`` held is free; it has to have the tokens with which it went."""
        self._add(waiter, -1)
        if not self._held[waiter.tenant]:
            del self._held[waiter.tenant]

    def tokens_for(self, waiter: Waiter, *, tokens_per_s: float | None, now: float) -> int:
        """What has to stay free beside ``waiter``, where ``tokens_per_s`` come free; None while that is not known."""
        if not self._held_requests:
            return 0
        if now - self._refreshed_at >= _REFRESH_S:
            self._refreshed_at = now
            self._refresh(now)
        is_owed = self._queue.is_owed(waiter.rank, waiter.tokens)
        protected_per_s = 0.0 if is_owed else self._before_per_s[waiter.rank]
        if waiter.tenant in self._greedy:
            protected_per_s += self._modest_per_s[waiter.rank]
        if protected_per_s < _MIN_ARRIVALS_PER_S:
            return 0
        mean_tokens = self._held_tokens / self._held_requests
        requests = _requests(protected_per_s / tokens_per_s) if tokens_per_s else _UNKNOWN_REQUESTS
        return round(min(requests * mean_tokens, _MAX_SHARE * self._held_tokens))

    def _refresh(self, now: float) -> None:
        rates = [
            {
                tenant: rate
                for tenant, flow in flows.known()
                if (rate := flow.arrivals.per_s(now)) >= _MIN_ARRIVALS_PER_S
            }
            for flows in self._queue.classes
        ]
        active = {tenant for by_tenant in rates for tenant in by_tenant}
        fair_tokens = self._held_tokens / max(1e-9, sum(self._weights.get(tenant, 1.0) for tenant in active))
        self._greedy = frozenset(
            tenant
            for tenant, held in self._held.items()
            if held > _GREED * fair_tokens * self._weights.get(tenant, 1.0)
        )
        before_per_s = 0.0
        for rank, by_tenant in enumerate(rates):
            self._before_per_s[rank] = before_per_s
            self._modest_per_s[rank] = sum(rate for tenant, rate in by_tenant.items() if tenant not in self._greedy)
            before_per_s += sum(by_tenant.values())

    def _add(self, waiter: Waiter, sign: int) -> None:
        self._held[waiter.tenant] += sign * waiter.tokens
        self._held_tokens += sign * waiter.tokens
        self._held_requests += sign


def _requests(load: float) -> float:
    """For how many to keep room, so that few find none: in a queue of such ``load`` more stand with that chance."""
    return min(_MAX_REQUESTS, math.log(_RISK) / math.log(load)) if load < 1 else _MAX_REQUESTS
