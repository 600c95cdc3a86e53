from __future__ import annotations

import random

import pytest

from gateway.policy.limit import Limit
from tests.fakes.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Time at a stand."""
    return ManualClock()


def make(total: int, clock: ManualClock) -> Limit:
    """A limit that draws the same numbers each time."""
    return Limit(total, clock=clock, rng=random.Random(1))


def refusal_s(limit: Limit) -> float:
    """The advice to one that asks for more than there will ever be."""
    hint_s = limit.try_take(limit.total + 1)
    assert hint_s is not None
    return hint_s


def test_the_advice_follows_the_rate_of_release(clock: ManualClock) -> None:
    """At 20 releases a second, a tenth of 100 places takes about half a second."""
    limit = make(100, clock)
    assert limit.try_take(100) is None
    for _ in range(100):
        clock.advance(0.049)
        limit.give_back()
    hints = [refusal_s(limit) for _ in range(200)]
    assert 0.5 == pytest.approx(sum(hints) / len(hints), rel=0.1)
    assert 0.25 <= min(hints) < max(hints) <= 0.75


def test_without_releases_the_advice_is_a_guess(clock: ManualClock) -> None:
    """About a second."""
    assert 0.5 <= refusal_s(make(10, clock)) <= 1.5


def test_old_releases_are_forgotten(clock: ManualClock) -> None:
    """What happened two windows ago says nothing of now."""
    limit = make(1000, clock)
    assert limit.try_take(1000) is None
    limit.give_back(1000)
    assert refusal_s(limit) < 0.8
    clock.advance(11)
    assert 0.5 <= refusal_s(limit) <= 1.5


def test_misuse_is_an_error(clock: ManualClock) -> None:
    """Units that were never taken, or a limit that lets nothing in."""
    limit = make(1, clock)
    with pytest.raises(ValueError, match="0 units are in use"):
        limit.give_back()
    with pytest.raises(ValueError, match="at least 1"):
        make(0, clock)
