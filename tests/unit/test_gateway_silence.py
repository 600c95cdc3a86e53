from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.silence import LOOK_S, Silence
from gateway.workers.load_watch import STALE_AFTER_S
from tests.fakes.clock import ManualClock


def seconds_until_lost(*lateness_s: float) -> float:
    """How long a silent worker is borne with, by looks that are late by so much, the last of them again and again."""
    clock = ManualClock()
    began_at = clock()
    silence = Silence(STALE_AFTER_S, began_at)
    late_s = iter(lateness_s)
    last_s = 0.0
    while True:
        last_s = next(late_s, last_s)
        clock.advance(LOOK_S + last_s)
        if silence.is_too_long(clock()):
            return clock() - began_at


@pytest.mark.parametrize("late_s", [0.0, 0.01, 0.05, 0.1])
def test_a_silent_worker_is_lost_within_three_seconds(late_s: float) -> None:
    """Also where the loop is always a little late."""
    assert seconds_until_lost(late_s) <= 3.0 + late_s


def test_time_in_which_the_loop_stood_still_is_not_the_workers() -> None:
    """Blocked for ten seconds, it has still to wait for what the socket holds."""
    assert STALE_AFTER_S + 10.0 - 0.5 <= seconds_until_lost(10.0, 0.0)


def test_a_loop_that_is_always_late_notices_all_the_same() -> None:
    """Otherwise an overloaded gateway would send its requests to a dead worker."""
    assert seconds_until_lost(1.0) <= 15.0


@given(st.lists(st.floats(0, 10), max_size=12))
def test_lost_only_after_enough_looks(lateness_s: list[float]) -> None:
    """Reading a report takes turns of the loop: there are as many as there would be in two thirds of the time."""
    silence = Silence(STALE_AFTER_S, 0.0)
    looks = [silence.is_too_long(now) for now in accumulate(LOOK_S + late_s for late_s in lateness_s)]
    assert not any(looks[: int(STALE_AFTER_S / LOOK_S * 2 / 3) - 1])
