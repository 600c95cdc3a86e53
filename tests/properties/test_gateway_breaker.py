from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.policy.breaker import Breaker, BreakerLimits, BreakerState, Permit
from gateway.policy.ejection import reprieved
from gateway.policy.outliers import Outliers
from gateway.policy.prefix_index import PrefixIndex

LIMITS = BreakerLimits(failures=3, probes=2, successes=3, delay_s=1.0, max_delay_s=8.0)


class BreakerMachine(RuleBasedStateMachine):
    """Jobs of all ages end in all ways while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(LIMITS, random.Random(0))
        self.now = 0.0
        self.opened_at = 0.0
        self.held: list[tuple[Permit, bool]] = []  # and whether it was given as a probe

    def note(self, before: BreakerState) -> None:
        if self.breaker.state is BreakerState.OPEN and before is not BreakerState.OPEN:
            self.opened_at = self.now

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        if not self.breaker.can_take(self.now):
            return
        permit = self.breaker.take(self.now)
        assert self.breaker.state is not BreakerState.OPEN
        self.held.append((permit, self.breaker.state is BreakerState.HALF_OPEN))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), end=st.sampled_from(["succeed", "fail", "ignore"]))
    def end(self, data: st.DataObject, end: str) -> None:
        before = self.breaker.state
        permit, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if end == "succeed":
            self.breaker.succeed(permit, self.now)
        elif end == "fail":
            self.breaker.fail(permit, self.now)
        else:
            self.breaker.ignore(permit)
        self.note(before)

    @rule()
    def stall(self) -> None:
        before = self.breaker.state
        self.breaker.stall(self.now)
        self.note(before)

    @rule()
    def shake_hands(self) -> None:
        self.breaker.shake_hands(self.now)

    @invariant()
    def an_open_breaker_gives_no_permit_before_its_delay(self) -> None:
        if self.breaker.state is BreakerState.OPEN and self.now < self.opened_at + 0.8 * LIMITS.delay_s:
            assert not self.breaker.can_take(self.now)

    @invariant()
    def half_open_lets_in_no_more_than_its_quota(self) -> None:
        if self.breaker.state is BreakerState.HALF_OPEN:
            probes = sum(permit.era == self.breaker._era for permit, _ in self.held)
            assert probes == self.breaker._probes <= LIMITS.probes

    @invariant()
    def closed_lets_everybody_in(self) -> None:
        if self.breaker.state is BreakerState.CLOSED:
            assert self.breaker.can_take(self.now)


TestBreaker = BreakerMachine.TestCase


@given(
    out=st.dictionaries(st.text(max_size=3), st.floats(0, 100), max_size=12),
    others=st.integers(0, 12),
)
def test_the_ejection_cap_holds(out: dict[str, float], others: int) -> None:
    """At most half of the workers are left out, or one; never all."""
    total = len(out) + others
    ejected = set(out) - set(reprieved(out, total=total))
    assert len(ejected) <= max(1, total // 2)
    assert not total or len(ejected) < total


@given(
    samples=st.lists(
        st.tuples(st.sampled_from("abcde"), st.floats(0, 100), st.floats(0, 10), st.floats(0, 200), st.booleans())
    ),
    now=st.floats(200, 300),
)
def test_weights_are_shares_and_never_all_are_weighed_down(
    samples: list[tuple[str, float, float, float, bool]], now: float
) -> None:
    """Whatever was measured."""
    outliers = Outliers()
    for worker_id, seconds, predicted_s, at, is_first in sorted(samples, key=lambda sample: sample[3]):
        if is_first:
            outliers.add_first_token(worker_id, seconds=seconds, predicted_s=predicted_s, now=at)
        else:
            outliers.add_next_token(worker_id, seconds=seconds, now=at)
    weights = outliers.weights(now)
    assert all(0 < weight < 1 for weight in weights.values())
    assert len(weights) < max(1, len({sample[0] for sample in samples}))


class PrefixIndexMachine(RuleBasedStateMachine):
    """Prompts of a tree of prefixes, against the list of all that were sent."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(max_entries=12)
        self.sent: list[tuple[int, ...]] = []

    @rule(turns=st.lists(st.integers(0, 2), max_size=8))
    def send(self, turns: list[int]) -> None:
        prompt = tuple(hash(tuple(turns[: end + 1])) for end in range(len(turns)))
        self.index.send(prompt)
        self.sent.append(prompt)
        assert self.index.held(prompt) == len(prompt)

    @rule(promised=st.integers(0, 5000), cached=st.integers(0, 5000))
    def confirm(self, promised: int, cached: int) -> None:
        self.index.confirm(promised_tokens=promised, cached_tokens=cached)

    @invariant()
    def it_is_bounded(self) -> None:
        assert len(self.index) <= self.index.max_entries
        assert 0 <= self.index.trust <= 1

    @invariant()
    def what_is_held_is_a_prefix_of_what_was_sent(self) -> None:
        for prompt in self.sent:
            held = self.index.held(prompt)
            assert all(name in self.index._names for name in prompt[:held])
            assert not any(name in self.index._names for name in prompt[held:])


TestPrefixIndex = PrefixIndexMachine.TestCase
