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


def test_the_advice_follows_the_rate_of_release(clock: ManualClock) -> None:
    """At 20 releases a second, a tenth of 100 places takes about half a second."""
    limit = make(100, clock)
    limit.take(100)
    for _ in range(100):
        clock.advance(0.049)
        limit.give_back()
    hints = [limit.retry_after_s() for _ in range(200)]
    assert 0.5 == pytest.approx(sum(hints) / len(hints), rel=0.1)
    assert 0.25 <= min(hints) < max(hints) <= 0.75


def test_without_releases_the_advice_is_a_guess(clock: ManualClock) -> None:
    """About a second."""
    assert 0.5 <= make(10, clock).retry_after_s() <= 1.5


def test_old_releases_are_forgotten(clock: ManualClock) -> None:
    """What happened two windows ago says nothing of now."""
    limit = make(1000, clock)
    limit.take(1000)
    limit.give_back(1000)
    assert limit.retry_after_s() < 0.8
    clock.advance(11)
    assert 0.5 <= limit.retry_after_s() <= 1.5


def test_misuse_is_an_error(clock: ManualClock) -> None:
    """Units that were never free, or never taken."""
    limit = make(1, clock)
    with pytest.raises(ValueError, match="0 units are in use"):
        limit.give_back()
    limit.take()
    with pytest.raises(ValueError, match="1 of 1 units are in use"):
        limit.take()
    with pytest.raises(ValueError, match="at least 1"):
        make(0, clock)
