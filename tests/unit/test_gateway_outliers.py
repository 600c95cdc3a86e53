from __future__ import annotations

import pytest

from gateway.policy.outliers import Outliers

PEERS = ("a", "b", "c")


def told(samples: int = 7, *, slow: float = 10.0, at: float = 0.0) -> Outliers:
    """Three workers alike, and one that takes ``slow`` times as long to the first token."""
    outliers = Outliers()
    for worker_id in (*PEERS, "slow"):
        for _ in range(samples):
            seconds = 0.1 * (slow if worker_id == "slow" else 1.0)
            outliers.add_first_token(worker_id, seconds=seconds, predicted_s=0.05, now=at)
    return outliers


def test_a_worker_ten_times_slower_than_its_peers_keeps_a_fortieth_of_its_chances() -> None:
    """The others keep the whole."""
    assert {"slow": pytest.approx(0.0256, rel=0.01)} == told().weights(1.0)


@pytest.mark.parametrize("slow", [0.1, 1.0, 3.9])
def test_differences_that_load_explains_are_tolerated(slow: float) -> None:
    """A fast worker is no outlier either."""
    assert {} == told(slow=slow).weights(1.0)


def test_a_few_samples_are_no_opinion() -> None:
    """One unlucky request is nobody's failure."""
    assert {} == told(samples=3).weights(1.0)


def test_a_slow_worker_is_given_another_chance_after_a_while() -> None:
    """Samples grow old."""
    assert {} == told().weights(61.0)


def test_a_fleet_that_is_slow_as_a_whole_has_no_outlier() -> None:
    """Each is compared with the others."""
    outliers = Outliers()
    for worker_id in PEERS:
        for _ in range(7):
            outliers.add_first_token(worker_id, seconds=30.0, predicted_s=0.1, now=0.0)
    assert {} == outliers.weights(1.0)


def test_with_two_workers_the_other_one_is_the_measure() -> None:
    """Half of the fleet cannot be an outlier, but one of two can."""
    outliers = Outliers()
    for worker_id, seconds in (("a", 0.01), ("b", 0.2)):
        for _ in range(7):
            outliers.add_next_token(worker_id, seconds=seconds, now=0.0)
    assert ["b"] == list(outliers.weights(1.0))


def test_a_worker_alone_is_never_an_outlier() -> None:
    """There is nobody to compare it with."""
    outliers = Outliers()
    for _ in range(7):
        outliers.add_next_token("a", seconds=9.0, now=0.0)
    assert {} == outliers.weights(1.0)


def test_a_worker_that_was_slow_is_measured_anew_when_it_comes_back() -> None:
    """Its samples were another process's."""
    outliers = told()
    outliers.forget("slow")
    assert {} == outliers.weights(1.0)


def test_less_than_half_of_the_workers_are_weighed_down() -> None:
    """Five workers: at most two."""
    outliers = Outliers()
    for worker_id, seconds in zip("abcde", (0.001, 0.001, 1.0, 1.0, 1.0), strict=True):
        for _ in range(7):
            outliers.add_next_token(worker_id, seconds=seconds, now=0.0)
    assert 2 >= len(outliers.weights(1.0))
