"""The order in which waiting requests get to workers: by criticality, by tenant, by deadline.

Between classes the order is strict, as criticality means (Site Reliability Engineering, chapter 21): a more critical
request waits for no less critical one. With one exception: of what more critical classes are served, a class is owed
one fiftieth, up to a request or so. That costs the critical 2 % of the drain rate at most, which is less than its
noise, and buys that no class stands still for hours: batch work goes on, if slowly.

The head of the queue is not overtaken because somebody smaller would fit: large requests would starve. At most the
head's own blocks lie idle for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping

from gateway.policy.fair_flows import FairFlows
from gateway.policy.waiter import CLASS_COUNT, Waiter

GUARANTEED_SHARE = 1 / 50
_MOST_OWED_TOKENS = 1_000
_SPARE_ENTRIES = 1_000


class Queue:
    """Everything that waits. Sizes are bounded here; for how long to wait is judged before."""

    def __init__(self, *, max_bytes: int, weights: Mapping[str, float]) -> None:
        """``weights`` are the shares of tenants, 1 where none is given."""
        self.max_bytes = max_bytes
        self.bytes = 0
        self.classes = tuple(FairFlows(weights) for _ in range(CLASS_COUNT))
        self._owed = [0.0] * CLASS_COUNT  # tokens that a class is owed for waiting behind more critical ones
        self.last_number = 0  # of the waiter that came last
        self._length = self._entries = 0
        self._leaving: list[tuple[float, int, Waiter]] = []  # by leaves_at; some have left before

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return self._length > 0

    def __iter__(self) -> Iterator[Waiter]:
        """All waiters, in no useful order."""
        return (waiter for flows in self.classes for _, flow in flows for waiter in flow)

    @property
    def tokens(self) -> int:
        """Those of all that wait."""
        return sum(flows.tokens for flows in self.classes)

    @property
    def above_share_tokens(self) -> int:
        """Those that wait for tenants above their share."""
        return sum(flow.tokens for flows in self.classes for _, flow in flows if flow.head.is_above_share)

    @property
    def prompt_tokens(self) -> int:
        """Those of their prompts."""
        return sum(flows.prompt_tokens for flows in self.classes)

    def victims(self, newcomer: Waiter) -> list[Waiter] | None:
        """Who has to go so that ``newcomer`` fits: nobody, some others, or None where it has to go itself.

        The least critical go first; of its own class only requests of a tenant that holds more than its share.
        """
        missing = self.bytes + newcomer.size_bytes - self.max_bytes
        victims: list[Waiter] = []
        for rank in range(CLASS_COUNT - 1, newcomer.rank, -1):
            for _, flow in self.classes[rank]:
                for waiter in flow.from_tail():
                    if missing <= 0:
                        return victims
                    victims.append(waiter)
                    missing -= waiter.size_bytes
        for waiter in self._beyond_share(newcomer):
            if missing <= 0:
                return victims
            victims.append(waiter)
            missing -= waiter.size_bytes
        return victims if missing <= 0 else None

    def least_critical(self, rank: int) -> Waiter | None:
        """The last of those that wait and are less critical than ``rank``."""
        for flows in reversed(self.classes[rank + 1 :]):
            for _, flow in flows:
                return flow.tail
        return None

    def add(self, waiter: Waiter, now: float) -> None:
        """``waiter`` begins to wait; ask ``victims`` first."""
        self.last_number += 1
        waiter.number = self.last_number
        self.classes[waiter.rank].add(waiter, now)
        self._note(waiter)

    def pass_through(self, waiter: Waiter, now: float) -> None:
        """``waiter`` comes while nobody waits, and is served at once: ``add`` and ``pop`` in one."""
        self.last_number += 1
        waiter.number = self.last_number
        self.classes[waiter.rank].pass_through(waiter, now)
        self._settle_debts(waiter)

    def put_back(self, waiter: Waiter, *, tokens: int) -> None:
        """A request that was taken found no room for ``tokens``: it has its old place again, in spite of bounds."""
        self.classes[waiter.rank].put_back(waiter, tokens=tokens)
        self._note(waiter)

    def remove(self, waiter: Waiter) -> None:
        """``waiter`` goes without having been served; no matter if it has gone."""
        if waiter.is_waiting:
            self.classes[waiter.rank].remove(waiter)
            self._leave(waiter)

    def head(self) -> Waiter | None:
        """The next to be served."""
        return next(self.heads(), None)

    def heads(self) -> Iterator[Waiter]:
        """The first of each tenant and class, in the order in which they are served."""
        owed = [rank for rank in range(CLASS_COUNT) if self._is_due(rank)]
        others = (rank for rank in range(CLASS_COUNT) if rank not in owed)
        return (head for rank in (*owed, *others) for head in self.classes[rank].heads())

    def pop(self, fits: Callable[[Waiter], bool]) -> Waiter | None:
        """Serve the head, if it ``fits``. One that has to leave headroom is overtaken by those for whom it is kept."""
        for waiter in self.heads():
            if fits(waiter):
                self._serve(waiter)
                return waiter
            if not waiter.headroom_tokens:
                return None
        return None

    def expire(self, now: float) -> list[Waiter]:
        """Let go of all whose time to leave has come."""
        expired = []
        while self._leaving and self._leaving[0][0] <= now:
            _, _, waiter = heapq.heappop(self._leaving)
            if waiter.is_waiting and waiter.leaves_at <= now:  # it may have been given more time since
                self.remove(waiter)
                expired.append(waiter)
        return expired

    @property
    def next_expiry_at(self) -> float | None:
        """When ``expire`` has to be asked again; None when nobody waits."""
        while self._leaving and not self._leaving[0][2].is_waiting:
            heapq.heappop(self._leaving)
        return self._leaving[0][0] if self._leaving else None

    def _serve(self, waiter: Waiter) -> None:
        self.classes[waiter.rank].serve(waiter)
        self._leave(waiter)
        self._settle_debts(waiter)

    def _settle_debts(self, waiter: Waiter) -> None:
        """Less critical classes are owed their share of what ``waiter`` is served; its own has had it."""
        for rank in range(waiter.rank + 1, CLASS_COUNT):
            self._owe(rank, waiter.tokens * GUARANTEED_SHARE)
        self._owed[waiter.rank] = max(0.0, self._owed[waiter.rank] - waiter.tokens)

    def is_owed(self, rank: int, tokens: float) -> bool:
        """Whether a class has its turn for so many tokens before all others, for what these have had."""
        return self._owed[rank] >= tokens

    def _owe(self, rank: int, tokens: float) -> None:
        head = self.classes[rank].head()
        most = max(_MOST_OWED_TOKENS, head.tokens if head else 0)
        self._owed[rank] = min(most, self._owed[rank] + tokens)

    def _is_due(self, rank: int) -> bool:
        head = self.classes[rank].head()
        return head is not None and self.is_owed(rank, head.tokens)

    def _beyond_share(self, newcomer: Waiter) -> Iterator[Waiter]:
        """Of the tenant that holds most for its weight, those that it holds beyond what the newcomer's would."""
        flows = self.classes[newcomer.rank]
        largest = max((flow for _, flow in flows), key=lambda flow: flow.bytes / flow.weight, default=None)
        own = flows.flow(newcomer.tenant)
        if largest is None or largest is own:
            return
        own_bytes = newcomer.size_bytes + (own.bytes if own else 0)
        share = own_bytes / flows.weight(newcomer.tenant)
        left = largest.bytes
        for waiter in largest.from_tail():
            left -= waiter.size_bytes
            if left / largest.weight < share:
                return
            yield waiter

    def _note(self, waiter: Waiter) -> None:
        waiter.is_waiting = True
        self._length += 1
        self.bytes += waiter.size_bytes
        self._entries += 1
        heapq.heappush(self._leaving, (waiter.leaves_at, self._entries, waiter))
        if len(self._leaving) > 2 * len(self) + _SPARE_ENTRIES:
            self._leaving = [entry for entry in self._leaving if entry[2].is_waiting]
            heapq.heapify(self._leaving)

    def _leave(self, waiter: Waiter) -> None:
        waiter.is_waiting = False
        self._length -= 1
        self.bytes -= waiter.size_bytes
