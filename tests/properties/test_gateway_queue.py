from __future__ import annotations

import random
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.policy.queue import GUARANTEED_SHARE, Queue
from gateway.policy.wait_forecast import Supply
from gateway.policy.waiter import Waiter
from gateway.policy.waiting_line import Refusal, WaitingLine

MAX_BYTES = 1_000
WEIGHTS = {"a": 2.0, "b": 0.5}


def waiter(**fields: object) -> Waiter:
    """A request of tenant a; ``fields`` go over what stands here."""
    values = {
        "tenant": "a",
        "rank": 1,
        "tokens": 100,
        "prompt_tokens": 50,
        "size_bytes": 10,
        "arrived_at": 0.0,
        "deadline_at": 600.0,
        "leaves_at": 600.0,
    }
    return Waiter(**(values | fields))  # type: ignore[arg-type]


class LineMachine(RuleBasedStateMachine):
    """Requests come, are served, are put back, give up and expire, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.line = WaitingLine(max_bytes=MAX_BYTES, max_wait_s=10, weights=WEIGHTS, rng=random.Random(0))
        self.waiting: list[Waiter] = []
        self.served: list[Waiter] = []
        self.free_tokens = 500
        self.was_put_back = False

    @property
    def supply(self) -> Supply:
        return Supply(free_tokens=self.free_tokens, tokens_per_s=None)

    @rule(
        tenant=st.sampled_from("abc"),
        rank=st.integers(0, 3),
        tokens=st.integers(1, 400),
        size_bytes=st.integers(0, 400),
        time_s=st.floats(0.001, 100),
    )
    def come(self, tenant: str, rank: int, tokens: int, size_bytes: int, time_s: float) -> None:
        newcomer = waiter(
            tenant=tenant,
            rank=rank,
            tokens=tokens,
            size_bytes=size_bytes,
            arrived_at=self.now,
            deadline_at=self.now + time_s,
            leaves_at=self.now + min(10, time_s),
        )
        if self.line.pass_through(newcomer, lambda one: one.tokens <= self.free_tokens, lambda: self.supply, self.now):
            assert not self.waiting
            self.free_tokens -= tokens
            self.served.append(newcomer)
            return
        answer = self.line.offer(newcomer, self.supply, self.now)
        if isinstance(answer, Refusal):
            assert not newcomer.is_waiting
            assert 0.05 <= answer.retry_after_s <= 30
            return
        for victim in answer:
            # Somebody goes only for one more critical, or for a tenant that holds less.
            assert victim.rank > rank or (victim.rank == rank and victim.tenant != tenant)
            self.waiting.remove(victim)
        self.waiting.append(newcomer)

    @rule()
    def serve(self) -> None:
        chosen = self.line.next(lambda one: one.tokens <= self.free_tokens, self.now)
        if chosen is None:
            return
        assert chosen.tokens <= self.free_tokens
        kin = [one for one in self.waiting if (one.tenant, one.rank) == (chosen.tenant, chosen.rank)]
        assert min(one.due_at for one in kin) == chosen.due_at
        self.free_tokens -= chosen.tokens
        self.waiting.remove(chosen)
        self.served.append(chosen)

    @precondition(lambda self: self.served)
    @rule(data=st.data(), more=st.integers(0, 50))
    def put_back(self, data: st.DataObject, more: int) -> None:
        one = self.served.pop(data.draw(st.integers(0, len(self.served) - 1)))
        self.free_tokens += one.tokens
        self.line.put_back(one, tokens=one.tokens + more)
        self.waiting.append(one)
        self.was_put_back = True

    @precondition(lambda self: self.served)
    @rule(data=st.data(), used=st.integers(1, 800))
    def end(self, data: st.DataObject, used: int) -> None:
        one = self.served.pop(data.draw(st.integers(0, len(self.served) - 1)))
        self.free_tokens += one.tokens
        self.line.released(one, used)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        one = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.line.leave(one)
        self.line.leave(one)

    @rule(seconds=st.floats(0, 5))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for one in self.line.expire(self.supply, self.now):
            self.waiting.remove(one)
        assert all(one.leaves_at > self.now for one in self.waiting)

    @invariant()
    def the_books_are_right(self) -> None:
        queue = self.line.queue
        assert sorted(map(id, self.waiting)) == sorted(map(id, queue))
        assert all(one.is_waiting for one in self.waiting)
        assert (len(self.waiting), sum(one.size_bytes for one in self.waiting)) == (len(queue), queue.bytes)
        assert self.was_put_back or queue.bytes <= MAX_BYTES
        for rank, flows in enumerate(queue.classes):
            assert sum(one.tokens for one in self.waiting if one.rank == rank) == flows.tokens
        next_at = queue.next_expiry_at
        assert (min(one.leaves_at for one in self.waiting) == next_at) if self.waiting else next_at is None


@given(seed=st.integers(), length=st.integers(1, 120), weight=st.floats(0.1, 10))
def test_two_tenants_that_wait_get_tokens_by_weight(seed: int, length: int, weight: float) -> None:
    """At no time has one had more than its share by more than one request of each (Goyal, theorem 1)."""
    queue, rng = Queue(max_bytes=10**9, weights={"b": weight}), random.Random(seed)
    costs = [rng.randint(1, 300) for _ in range(length)]
    for cost in costs:
        queue.add(waiter(tenant=rng.choice("ab"), tokens=cost), 0.0)
    served = {"a": 0.0, "b": 0.0}
    bound = max(costs) + max(costs) / weight
    flows = queue.classes[1]
    while flows.flow("a") and flows.flow("b"):
        chosen = queue.pop(lambda _: True)
        assert chosen is not None
        served[chosen.tenant] += chosen.tokens / (weight if chosen.tenant == "b" else 1.0)
        assert abs(served["a"] - served["b"]) <= bound + 1e-6


@given(seed=st.integers(), length=st.integers(1, 400))
def test_classes_are_served_in_order_but_for_a_fiftieth(seed: int, length: int) -> None:
    """What a class is served while a more critical one waits is its guaranteed share, within one request."""
    queue, rng = Queue(max_bytes=10**9, weights={}), random.Random(seed)
    for _ in range(length):
        queue.add(waiter(rank=rng.randrange(4), tokens=rng.randint(1, 300)), 0.0)
    out_of_turn: dict[int, int] = defaultdict(int)
    total = 0
    while chosen := queue.pop(lambda _: True):
        total += chosen.tokens
        if any(queue.classes[rank] for rank in range(chosen.rank)):
            out_of_turn[chosen.rank] += chosen.tokens
    for tokens in out_of_turn.values():
        assert tokens <= total * GUARANTEED_SHARE


@given(seed=st.integers(), length=st.integers(1, 60))
def test_to_pass_through_is_to_come_and_to_be_served_at_once(seed: int, length: int) -> None:
    """What tenants and classes have had, and what they are owed, is the same whichever way requests go."""
    rng, now, supply = random.Random(seed), 0.0, Supply(free_tokens=10**9, tokens_per_s=None)
    short, long = (
        WaitingLine(max_bytes=MAX_BYTES, max_wait_s=10, weights=WEIGHTS, rng=random.Random(0)) for _ in range(2)
    )
    for _ in range(length):
        now += rng.random()
        fields = {"tenant": rng.choice("abc"), "rank": rng.randrange(4), "tokens": rng.randint(1, 300)}
        one, other = waiter(**fields), waiter(**fields)
        assert not short.pass_through(one, lambda _: False, lambda: supply, now)
        assert short.pass_through(one, lambda _: True, lambda: supply, now)
        assert [] == long.offer(other, supply, now)
        assert other is long.next(lambda _: True, now)
        assert _accounts(long) == _accounts(short)
        if rng.random() < 0.5:
            short.released(one, 100)
            long.released(other, 100)


def _accounts(line: WaitingLine) -> object:
    queue = line.queue
    return [
        (
            flows.virtual_time,
            flows.tokens,
            len(flows),
            *map(flows.start_of, "abc"),
            queue.is_owed(rank, 10),
            queue.bytes,
        )
        for rank, flows in enumerate(queue.classes)
    ]


def test_the_head_is_overtaken_by_nobody() -> None:
    """A large request gets its room in the end, though smaller ones would fit before."""
    queue = Queue(max_bytes=10**9, weights={})
    queue.add(waiter(tokens=500), 0.0)
    queue.add(waiter(tokens=1), 0.0)
    assert queue.pop(lambda one: one.tokens < 500) is None
    assert [500, 1] == [one.tokens for one in (queue.pop(lambda _: True), queue.pop(lambda _: True)) if one]


TestLine = LineMachine.TestCase
TestLine.settings = settings(max_examples=60)
