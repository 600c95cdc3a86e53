from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import ManualClock
from worker.feed import Feed
from worker.ledger import AtCapacityError, Capacity, Ledger, Limit
from worker.output_lengths import OutputLengths
from worker.overcommit import Overcommit, PoolUse


class _Pool:
    """A pool whose use is told once a second."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.overcommit = Overcommit(quantile=0.7, clock=self.clock)
        self.preemptions = 0

    def run(self, *, seconds: int, use: float, preemptions: int = 0, is_full: bool = False) -> float:
        """The quantile after so many seconds with so many events in each."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.preemptions += preemptions
            self.overcommit.observe(
                PoolUse(
                    used_blocks=round(use * 1_000),
                    total_blocks=1_000,
                    preemptions=self.preemptions,
                    is_full=is_full,
                )
            )
        return self.overcommit.quantile


def test_preemptions_make_reservations_longer() -> None:
    """Within seconds, and up to a bound."""
    pool = _Pool()

    assert 0.7 < pool.run(seconds=5, use=1.0, preemptions=1)
    assert 0.98 == pytest.approx(pool.run(seconds=100, use=1.0, preemptions=1))


def test_spare_blocks_make_reservations_shorter_when_the_ledger_is_full() -> None:
    """Within seconds, and down to a bound."""
    pool = _Pool()

    assert 0.45 < pool.run(seconds=6, use=0.8, is_full=True) < 0.6
    assert 0.3 == pytest.approx(pool.run(seconds=1_000, use=0.8, is_full=True))


def test_reservations_shorten_by_what_there_is_to_spare() -> None:
    """A pool that is nearly full has only a few more requests coming to it."""
    assert _Pool().run(seconds=4, use=0.8, is_full=True) < _Pool().run(seconds=4, use=0.96, is_full=True) < 0.7


def test_reservations_stay_when_nothing_speaks_against_them() -> None:
    """Neither a ledger with room for more nor a pool that is used well is a reason to change."""
    assert 0.7 == _Pool().run(seconds=100, use=0.3, is_full=False)
    assert 0.7 == _Pool().run(seconds=100, use=0.995, is_full=True)


def test_pool_that_has_only_just_been_filled_shortens_nothing() -> None:
    """Its requests have most of their output before them."""
    assert 0.7 == _Pool().run(seconds=1, use=0.5, is_full=True)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 1.0), st.integers(0, 3), st.booleans(), st.floats(0.01, 3.0)), min_size=1, max_size=60
    ),
    st.floats(0.0, 1.0),
)
def test_quantile_moves_as_what_happened_says(steps: list[tuple[float, int, bool, float]], quantile: float) -> None:
    """Up only after a preemption, down only when the ledger was full; and never out of its bounds, once inside."""
    clock, preemptions = ManualClock(), 0
    overcommit = Overcommit(quantile=quantile, clock=clock)
    was_preempted, was_full = False, False  # since it moved
    for use, new_preemptions, is_full, pause_s in steps:
        clock.advance(pause_s)
        preemptions += new_preemptions
        was_preempted, was_full = was_preempted or new_preemptions > 0, was_full or is_full
        before = overcommit.quantile
        overcommit.observe(
            PoolUse(used_blocks=round(use * 1_000), total_blocks=1_000, preemptions=preemptions, is_full=is_full)
        )
        if overcommit.quantile > before:
            assert was_preempted
            assert overcommit.quantile <= 0.98
        if overcommit.quantile < before:
            assert was_full
            assert overcommit.quantile >= 0.3
        if overcommit.quantile != before:
            was_preempted, was_full = False, is_full


def test_feed_takes_as_many_requests_as_a_step_could() -> None:
    """Short prompts make the line inside the engine long, long ones make it short."""
    feed = Feed(step_tokens=8_192, max_requests=32, max_backlog_s=1.0)
    assert 32 == feed.requests

    for _ in range(100):
        feed.learn(1_000)
    assert 9 == feed.requests

    for _ in range(2_000):
        feed.learn(4_000)
    assert 4 == feed.requests


def test_prompts_are_refused_that_would_wait_too_long_to_be_computed() -> None:
    """The backlog is bounded by the pace of the engine; an engine without one takes a prompt of any length."""
    feed = Feed(step_tokens=100, max_requests=32, max_backlog_s=1.0)
    capacity = Capacity(total_blocks=10_000, block_size=16, max_running_requests=8)
    ledger = Ledger(capacity, OutputLengths(quantile=0.7), feed, ManualClock())
    feed.prefill_tokens_per_s = 2_000.0
    ledger.admit(tenant="", prompt_tokens=5_000, max_output_tokens=1)

    with pytest.raises(AtCapacityError) as refusal:
        ledger.admit(tenant="", prompt_tokens=1, max_output_tokens=1)

    numbers = refusal.value.refusal
    assert (Limit.PROMPT_TOKENS, 0) == (numbers.limit, numbers.room.prompt_tokens)
