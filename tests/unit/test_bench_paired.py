from __future__ import annotations

import pytest

from bench.paired import Change, change, ratio, verdict


def test_a_slow_machine_is_slow_for_all_that_alternates() -> None:
    """Rounds of equal cost come out equal, whatever the speed drifts to."""
    assert 1.0 == pytest.approx(ratio([2.0, 4.0, 6.0], [1.0, 3.0, 5.0, 7.0]))


def test_what_costs_more_is_seen_beside_what_it_is_compared_with() -> None:
    """By its share, though the machine is slower at the end."""
    assert 1.1 == pytest.approx(ratio([1.1, 2.2], [1.0, 1.0, 3.0]))


def test_rounds_that_do_not_alternate_are_refused() -> None:
    """One would be compared with nothing."""
    with pytest.raises(ValueError, match="do not alternate"):
        ratio([1.0, 1.0], [1.0, 1.0])


def test_an_outlier_moves_neither_median_nor_interval_far() -> None:
    """A round that the machine spoils is one of many; and who draws with the same seed finds the same."""
    ratios = [1.0 + n % 5 / 100 for n in range(50)]
    found = change([*ratios, 9.0], seed=1)
    assert found == change([*ratios, 9.0], seed=1)
    assert 0.02 == pytest.approx(found.median)
    assert 0.0 < found.low <= found.median <= found.high < 0.05


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.04, 0.01, "holds"), (-0.06, -0.04, "inside the interval"), (-0.09, -0.06, "does not hold")],
)
def test_a_goal_within_the_interval_is_not_decided(low: float, high: float, expected: str) -> None:
    """Only one outside of it is."""
    assert expected == verdict(Change(median=(low + high) / 2, low=low, high=high), -0.05)
