from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.lag import Lag


@given(late_s=st.floats(0, 5), spread_s=st.floats(0, 1), count=st.integers(30, 100))
def test_it_comes_to_lie_above_what_is_usual(late_s: float, spread_s: float, count: int) -> None:
    """By two mean deviations."""
    lag = Lag()
    for number in range(count):
        lag.add(late_s + (spread_s if number % 2 else -spread_s), 0.0)
    assert late_s - spread_s <= lag.seconds(0.0) <= late_s + 4 * spread_s + 0.05 * late_s + 1e-9


def test_it_is_nothing_before_the_first_sample_and_fades_after_the_last() -> None:
    """Whoever is refused for its sake is never measured."""
    lag = Lag()
    assert 0.0 == lag.seconds(0.0)
    lag.add(0.1, 0.0)
    assert lag.seconds(0.0) > lag.seconds(30.0) > lag.seconds(300.0)
    assert lag.seconds(300.0) < 0.001


def test_what_had_not_come_by_then_counts_only_if_that_was_late() -> None:
    """A client that gave up early says nothing."""
    lag = Lag()
    lag.add(0.1, 0.0)
    before = lag.seconds(0.0)
    lag.add(0.05, 0.0, is_lower_bound=True)
    assert before == lag.seconds(0.0)
    lag.add(1.0, 0.0, is_lower_bound=True)
    assert before < lag.seconds(0.0)


def test_first_tokens_that_come_early_are_no_time_gained() -> None:
    """The rates were too low; to rely on that would be hope."""
    lag = Lag()
    for _ in range(20):
        lag.add(-0.5, 0.0)
    assert 0.0 == lag.seconds(0.0)
