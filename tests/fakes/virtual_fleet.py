"""Workers in virtual time behind real waiting lines: a pool of KV tokens whose jobs end after as long as they take."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import CLASS_COUNT, Waiter
from gateway.policy.waiting_line import Refusal, WaitingLine
from worker.drain import Drain

FIRST_TOKEN_S = 0.1
_TOKEN_S = 0.02
_NEVER = float("inf")


@dataclass(eq=False, kw_only=True)
class Trip(Waiter):
    """A request on its way, and what became of it."""

    output_tokens: int
    held_tokens: int  # prompt and output, as they will turn out
    gateway: int = 0
    started_at: float | None = None
    refusal: Refusal | None = None
    is_evicted: bool = False
    is_expired: bool = False
    would_have_started_at: float | None = None  # of a refused one: when one of its kind that came later was served

    @property
    def wait_s(self) -> float:
        if self.started_at is None:
            raise AssertionError("it was not served")
        return self.started_at - self.arrived_at

    @property
    def hint_error(self) -> float | None:
        """How far off the advice was, as a share of what would have been right; None if that is not known."""
        if self.refusal is None or self.would_have_started_at is None:
            return None
        right_s = self.would_have_started_at - self.arrived_at
        return abs(self.refusal.retry_after_s - right_s) / right_s


@dataclass(slots=True, kw_only=True)
class VirtualFleet:
    """Runs a trace to its end. ``capacity_tokens`` is the pool of all workers; each of ``lines`` is a gateway's."""

    lines: list[WaitingLine]
    capacity_tokens: int
    now: float = 0.0
    used_tokens: int = 0
    held_tokens: Counter[int] = field(default_factory=Counter)  # of these, by gateway
    tenant_tokens: Counter[str] = field(default_factory=Counter)  # and by tenant
    _running: list[tuple[float, int, Trip]] = field(default_factory=list)
    _started: int = 0
    _refused: list[tuple[int, Trip]] = field(default_factory=list)
    _drain: Drain = field(init=False)

    def __post_init__(self) -> None:
        self._drain = Drain(lambda: self.now)

    def run(self, trace: Iterable[Trip]) -> list[Trip]:
        trips = []
        for trip in trace:
            self._advance_to(trip.arrived_at)
            self.now = trip.arrived_at
            trips.append(trip)
            self._offer(trip)
            self._serve(self.lines[trip.gateway])
        self._advance_to(_NEVER)
        return trips

    @property
    def free_tokens(self) -> int:
        return max(0, self.capacity_tokens - self.used_tokens)

    def supply(self, line: WaitingLine) -> Supply:
        """As a gateway has it from load reports, were these always up to date."""
        return Supply(
            free_tokens=self.free_tokens,
            tokens_per_s=self._drain.per_s or None,
            waiting_elsewhere_tokens=sum(other.queue.tokens for other in self.lines if other is not line),
            above_share_elsewhere_tokens=sum(
                other.queue.above_share_tokens for other in self.lines if other is not line
            ),
            held_tokens=dict(self.tenant_tokens),
            asked_elsewhere_per_s=self._asked_elsewhere(line),
            held_share=self.held_tokens[self.lines.index(line)] / max(1, self.used_tokens),
        )

    def _asked_elsewhere(self, line: WaitingLine) -> dict[str, float]:
        asked = dict[str, float]()
        for other in self.lines:
            for tenant, tokens_per_s in other.asked_per_s if other is not line else ():
                asked[tenant] = asked.get(tenant, 0.0) + tokens_per_s
        return asked

    def _offer(self, trip: Trip) -> None:
        line = self.lines[trip.gateway]
        if line.pass_through(trip, self._has_room, lambda: self.supply(line), self.now):
            self._start(trip)
            return
        answer = line.offer(trip, self.supply(line), self.now)
        if isinstance(answer, Refusal):
            trip.refusal = answer
            self._refused.append((line.queue.last_number, trip))
            return
        for victim in answer:
            assert isinstance(victim, Trip)
            victim.is_evicted = True

    def _serve(self, line: WaitingLine) -> None:
        while trip := line.next(self._has_room, self.now):
            assert isinstance(trip, Trip)
            self._start(trip)
        self._drain.set_full(any(one.queue for one in self.lines))

    def _start(self, trip: Trip) -> None:
        trip.started_at = self.now
        self.used_tokens += trip.tokens
        self.held_tokens[trip.gateway] += trip.tokens
        self.tenant_tokens[trip.tenant] += trip.tokens
        self._started += 1
        ends_at = self.now + FIRST_TOKEN_S + _TOKEN_S * trip.output_tokens
        heapq.heappush(self._running, (ends_at, self._started, trip))
        still_refused = []
        for number, refused in self._refused:
            kin = (refused.gateway, refused.rank, refused.tenant) == (trip.gateway, trip.rank, trip.tenant)
            if kin and number < trip.number:
                refused.would_have_started_at = self.now
            else:
                still_refused.append((number, refused))
        self._refused = still_refused

    def _has_room(self, waiter: Waiter) -> bool:
        return not self.used_tokens or waiter.tokens + waiter.headroom_tokens <= self.free_tokens

    def _advance_to(self, then: float) -> None:
        while True:
            ends_at = self._running[0][0] if self._running else _NEVER
            expires_at = min(line.queue.next_expiry_at or _NEVER for line in self.lines)
            at = min(ends_at, expires_at)
            if at > then or at == _NEVER:
                return
            self.now = at
            if ends_at == at:
                _, _, trip = heapq.heappop(self._running)
                self.used_tokens -= trip.tokens
                self.held_tokens[trip.gateway] -= trip.tokens
                self.tenant_tokens[trip.tenant] -= trip.tokens
                self._drain.release(trip.tokens)
                self.lines[trip.gateway].released(trip, trip.held_tokens)
            for line in sorted(self.lines, key=_turn):
                for expired in line.expire(self.supply(line), self.now):
                    assert isinstance(expired, Trip)
                    expired.is_expired = True
                self._serve(line)


def _turn(line: WaitingLine) -> tuple[int, bool, float]:
    """Gateways let those go first whose first in line comes before their own."""
    head = line.queue.head()
    return (CLASS_COUNT, False, 0.0) if head is None else (head.rank, head.is_above_share, head.arrived_at)


def poisson(
    rng: random.Random,
    *,
    per_s: float,
    for_s: float,
    tenant: str = "a",
    rank: int = 1,
    max_wait_s: float = 1.5,
    from_s: float = 0.0,
    mean_output_tokens: int = 200,
    gateway: int = 0,
) -> Iterable[Trip]:
    """Requests of one tenant: prompts of about 300 tokens, outputs exponential, expected at their 70th percentile."""
    now = from_s
    while (now := now + rng.expovariate(per_s)) < from_s + for_s:
        prompt = rng.randint(100, 500)
        output = max(1, round(rng.expovariate(1 / mean_output_tokens)))
        yield Trip(
            tenant=tenant,
            rank=rank,
            tokens=prompt + round(1.2 * mean_output_tokens),
            prompt_tokens=prompt,
            size_bytes=4 * prompt,
            arrived_at=now,
            deadline_at=now + 600,
            leaves_at=now + max_wait_s,
            output_tokens=output,
            held_tokens=prompt + output,
            gateway=gateway,
        )
