from __future__ import annotations

import random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.policy.limit import Limit
from gateway.policy.retry_budget import RetryBudget
from tests.fakes.clock import ManualClock


class LimitMachine(RuleBasedStateMachine):
    """Takes, gives back and asks, in any order and at any time."""

    @initialize(total=st.integers(1, 50), seed=st.integers())
    def start(self, total: int, seed: int) -> None:
        self.clock = ManualClock()
        self.limit = Limit(total, clock=self.clock, rng=random.Random(seed))
        self.held: list[int] = []

    @rule(units=st.integers(0, 60))
    def take(self, units: int) -> None:
        fits = sum(self.held) + units <= self.limit.total
        assert fits == self.limit.can_take(units)
        refusal_s = self.limit.try_take(units)
        assert fits == (refusal_s is None)
        if refusal_s is None:
            self.held.append(units)
        else:
            assert 0.1 <= refusal_s <= 10.0

    @precondition(lambda self: self.held)
    @rule()
    def give_back(self) -> None:
        self.limit.give_back(self.held.pop())

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def use_is_what_is_held(self) -> None:
        assert sum(self.held) == self.limit.in_use
        assert 0 <= self.limit.in_use <= self.limit.total


class RetryBudgetMachine(RuleBasedStateMachine):
    """Against the formula of gRFC A6."""

    @initialize()
    def start(self) -> None:
        self.budget = RetryBudget(max_tokens=10, token_ratio=0.5)
        self.tokens = 10.0

    @rule()
    def fail(self) -> None:
        self.budget.fail()
        self.tokens = max(0.0, self.tokens - 1)

    @rule()
    def succeed(self) -> None:
        self.budget.succeed()
        self.tokens = min(10.0, self.tokens + 0.5)

    @invariant()
    def retries_only_above_half(self) -> None:
        assert (self.tokens > 5) == self.budget.can_retry


TestLimit = LimitMachine.TestCase
TestRetryBudget = RetryBudgetMachine.TestCase
