"""Tenants that wait in one class of criticality: fair between them in tokens, earliest deadline first inside each.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): a tenant's next request starts, in virtual time, where its last
one ended, or now if the tenant was away; the earliest start is served, and its tokens over the tenant's weight are what
the tenant's clock moves on by. A tenant that sends ten times its share so only queues behind itself.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping

from gateway.policy.rate import Rate
from gateway.policy.waiter import Waiter

# A tenant that has not sent for so long has no say in forecasts.
_ARRIVALS_TIME_CONSTANT_S = 5.0
_FLOWS_TO_TIDY = 64


class Flow:
    """The waiting requests of one tenant, in the order in which they leave."""

    def __init__(self, weight: float, start: float) -> None:
        self.weight = weight
        self.start = start  # of its next request, in virtual time
        self.tokens = 0
        self.bytes = 0
        self.arrivals = Rate(_ARRIVALS_TIME_CONSTANT_S)  # in tokens
        self.asked = Rate(_ARRIVALS_TIME_CONSTANT_S)  # those refused among them
        # Ascending, so that the first to leave stands last, where taking it costs nothing.
        self._waiters: list[tuple[float, int, Waiter]] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        """The waiters, first to leave first."""
        return (waiter for _, _, waiter in reversed(self._waiters))

    def from_tail(self) -> Iterator[Waiter]:
        """The waiters, last to leave first."""
        return (waiter for _, _, waiter in self._waiters)

    @property
    def head(self) -> Waiter:
        """The first to leave."""
        return self._waiters[-1][2]

    @property
    def tail(self) -> Waiter:
        """The last to leave."""
        return self._waiters[0][2]

    @property
    def mean_tokens(self) -> float:
        """Of the waiting requests."""
        return self.tokens / len(self._waiters)

    def add(self, waiter: Waiter) -> None:
        """Take ``waiter`` in at its place."""
        insort(self._waiters, (-waiter.due_at, -waiter.number, waiter))
        self.tokens += waiter.tokens
        self.bytes += waiter.size_bytes

    def remove(self, waiter: Waiter) -> None:
        """Take ``waiter`` out; it has to be there."""
        del self._waiters[bisect_left(self._waiters, (-waiter.due_at, -waiter.number))]
        self.tokens -= waiter.tokens
        self.bytes -= waiter.size_bytes

    def tokens_before(self, waiter: Waiter) -> float:
        """About how many tokens leave before ``waiter`` does, whether or not it is here yet."""
        if not self._waiters:
            return 0.0
        number = waiter.number if waiter.is_waiting else math.inf
        behind = bisect_right(self._waiters, (-waiter.due_at, -number), key=_place)
        return self.mean_tokens * (len(self._waiters) - behind)


class FairFlows:
    """All tenants of one class."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """``weights`` by tenant; 1 where none is given."""
        self.tokens = 0
        self.prompt_tokens = 0
        self.length = 0
        self.virtual_time = 0.0
        self.arrivals = Rate(_ARRIVALS_TIME_CONSTANT_S)  # of all, in tokens
        self._weights = weights
        self._flows: dict[str, Flow] = {}
        # (start, number, tenant) of every flow that waits; entries whose start is no longer true are skipped.
        self._order: list[tuple[float, int, str]] = []
        self._entries = 0

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return self.length > 0

    def __iter__(self) -> Iterator[tuple[str, Flow]]:
        """The tenants that wait."""
        return ((tenant, flow) for tenant, flow in self._flows.items() if flow)

    def flow(self, tenant: str) -> Flow | None:
        """The tenant's, if it waits or has been served of late."""
        return self._flows.get(tenant)

    def weight(self, tenant: str) -> float:
        """The tenant's share, beside those of the others."""
        return self._weights.get(tenant, 1.0)

    def start_of(self, tenant: str) -> float:
        """Where the tenant's next request starts, in virtual time."""
        flow = self._flows.get(tenant)
        if flow is None:
            return self.virtual_time
        return flow.start if flow else max(flow.start, self.virtual_time)

    def others(self, tenant: str) -> Iterator[Flow]:
        """The flows of all other tenants, those included that wait for nothing now."""
        return (flow for name, flow in self._flows.items() if name != tenant)

    @property
    def tenant_count(self) -> int:
        """How many tenants wait or have come of late."""
        return len(self._flows)

    def known(self) -> Iterable[tuple[str, Flow]]:
        """All tenants that wait or have come of late."""
        return self._flows.items()

    def active_weight(self, tenant: str) -> float:
        """The weight of all that wait or have sent of late, ``tenant`` among them."""
        return self.weight(tenant) + sum(flow.weight for flow in self.others(tenant))

    def add(self, waiter: Waiter, now: float) -> None:
        """A request begins to wait."""
        self._put(self._arrive(waiter, now), waiter)

    def pass_through(self, waiter: Waiter, now: float) -> None:
        """A request comes while nobody waits, and leaves for a worker at once: ``add`` and ``serve`` in one."""
        flow = self._arrive(waiter, now)
        self.virtual_time = max(self.virtual_time, flow.start)
        flow.start += waiter.tokens / flow.weight

    def put_back(self, waiter: Waiter, *, tokens: int) -> None:
        """A request that was served found no room after all: it waits again, and its tenant has not been served.

        ``tokens`` is what is expected of it now.
        """
        flow = self._flow_of(waiter.tenant)
        flow.start -= waiter.tokens / flow.weight
        waiter.tokens = tokens
        self._put(flow, waiter)

    def remove(self, waiter: Waiter) -> None:
        """A request waits no more, and was not served."""
        self._take(self._flows[waiter.tenant], waiter)

    def head(self) -> Waiter | None:
        """The next to be served."""
        while self._order:
            start, _, tenant = self._order[0]
            flow = self._flows.get(tenant)
            if flow and flow.start == start:
                return flow.head
            heapq.heappop(self._order)
        return None

    def heads(self) -> Iterator[Waiter]:
        """The first of each tenant, in the order in which they are served."""
        first = self.head()
        if first is None:
            return
        yield first  # mostly, nobody asks for more
        waiting = sorted((flow.start, tenant) for tenant, flow in self if tenant != first.tenant)
        for _, tenant in waiting:
            yield self._flows[tenant].head

    def serve(self, waiter: Waiter) -> None:
        """A request leaves for a worker."""
        flow = self._flows[waiter.tenant]
        self.virtual_time = max(self.virtual_time, flow.start)
        flow.start += waiter.tokens / flow.weight
        self._take(flow, waiter)
        if flow:
            self._enter(waiter.tenant, flow)

    def settle(self, tenant: str, *, expected_tokens: int, tokens: int) -> None:
        """A request that was served as ``expected_tokens`` has used ``tokens``: the tenant's clock is set right."""
        flow = self._flows.get(tenant)
        if flow is not None:
            flow.start += (tokens - expected_tokens) / flow.weight
            if flow:
                self._enter(tenant, flow)

    def ask(self, waiter: Waiter, now: float) -> None:
        """A request comes; whether it may wait is not decided yet."""
        if len(self._flows) > _FLOWS_TO_TIDY:
            self._forget_idle(now)
        self._flow_of(waiter.tenant).asked.add(waiter.tokens, now)

    def _arrive(self, waiter: Waiter, now: float) -> Flow:
        flow = self._flow_of(waiter.tenant)
        if not flow:
            flow.start = max(flow.start, self.virtual_time)
        flow.arrivals.add(waiter.tokens, now)
        self.arrivals.add(waiter.tokens, now)
        return flow

    def _flow_of(self, tenant: str) -> Flow:
        flow = self._flows.get(tenant)
        if flow is None:
            flow = self._flows[tenant] = Flow(self.weight(tenant), self.virtual_time)
        return flow

    def _forget_idle(self, now: float) -> None:
        """Let go of tenants that wait for nothing, owe nothing, and have sent little of late."""
        idle = [
            tenant
            for tenant, flow in self._flows.items()
            if not flow and flow.start <= self.virtual_time and flow.asked.per_s(now) < 1
        ]
        for tenant in idle:
            del self._flows[tenant]

    def _put(self, flow: Flow, waiter: Waiter) -> None:
        flow.add(waiter)
        self.tokens += waiter.tokens
        self.prompt_tokens += waiter.prompt_tokens
        self.length += 1
        self._enter(waiter.tenant, flow)

    def _take(self, flow: Flow, waiter: Waiter) -> None:
        flow.remove(waiter)
        self.tokens -= waiter.tokens
        self.prompt_tokens -= waiter.prompt_tokens
        self.length -= 1

    def _enter(self, tenant: str, flow: Flow) -> None:
        self._entries += 1
        heapq.heappush(self._order, (flow.start, self._entries, tenant))


def _place(entry: tuple[float, float, Waiter]) -> tuple[float, float]:
    return entry[:2]
