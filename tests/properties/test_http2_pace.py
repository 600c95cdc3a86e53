"""Whatever comes in whatever order: the loop is held for a moment at most, and only where reads are many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.http2.pace import HOLD_S, TURN_S, Pace

_READS = 64
_TURNS = st.lists(st.tuples(st.integers(1, 20), st.floats(0, 0.01)), max_size=300)


@given(turns=_TURNS)
def test_no_pause_lasts_longer_than_a_turn(turns: list[tuple[int, float]]) -> None:
    """Turns of any number of reads, any time apart; and one that took as long as a turn is not followed by a pause."""
    now = 50.0
    pace = Pace(now)
    for reads, took_s in turns:
        for _ in range(reads):
            pace.note_read(now)
        now += took_s
        pause_s = pace.pause_s(now)
        assert 0 <= pause_s <= TURN_S
        if took_s > TURN_S:
            assert pause_s == 0
        now += pause_s


@given(gaps_s=st.lists(st.floats(0.00005, 1), max_size=300))
def test_reads_that_are_apart_are_not_held_up(gaps_s: list[float]) -> None:
    """Twenty thousand a second, or fewer: requests that follow one another, and streams of a hundred clients."""
    now = 50.0
    pace = Pace(now)
    for gap_s in gaps_s:
        now += gap_s * 1.000001  # what an addition rounds away is not meant
        pace.note_read(now)
        assert pace.pause_s(now) == 0


@given(work_s=st.floats(0, 0.0002), connections=st.integers(1, 8))
def test_dense_reads_share_turns(work_s: float, connections: int) -> None:
    """Where a turn finds what to read as soon as it begins, it is made to last, until that is judged anew."""
    now = began = 50.0
    pace = Pace(now)
    for _ in range(_READS):
        pace.note_read(now)
    assert pace.is_held
    now += pace.pause_s(now)
    while now < began + HOLD_S - TURN_S:
        for _ in range(connections):
            pace.note_read(now)
        now += work_s
        pause_s = pace.pause_s(now)
        assert abs(work_s + pause_s - TURN_S) < 1e-9
        now += pause_s
    now = began + HOLD_S
    pace.note_read(now)
    assert not pace.is_held
    for _ in range(_READS):
        pace.note_read(now)
    assert pace.is_held


def test_one_client_after_many_is_held_for_a_moment_only() -> None:
    """Reads that depend on one another do not keep the hold that a flood has brought about."""
    now = began = 50.0
    pace = Pace(now)
    for _ in range(_READS):
        pace.note_read(now)
    while now < began + HOLD_S:
        now += 0.0002 + pace.pause_s(now)
        pace.note_read(now)
    for _ in range(10 * _READS):
        assert pace.pause_s(now) == 0
        now += 0.0002
        pace.note_read(now)
