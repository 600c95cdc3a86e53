from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.clock import ManualClock
from tests.fakes.engine_loads import IDLE
from tests.fakes.feeds import wide_feed
from worker.engine import EngineLoad
from worker.health import is_stalled
from worker.ledger import Capacity, Ledger, Reservation
from worker.output_lengths import OutputLengths
from worker.pace import Pace
from worker.rate import Rate


class _Engine:
    """An engine of which only the load is seen."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.figures = replace(IDLE, last_step_at=clock())

    def load(self) -> EngineLoad:
        return self.figures

    def step(self, *, seconds: float, prompt_tokens: int = 0, output_tokens: int = 0, running: int = 1) -> None:
        self.clock.advance(seconds)
        self.figures = replace(
            self.figures,
            running_requests=running,
            last_step_at=self.clock(),
            step_count=self.figures.step_count + 1,
            prompt_tokens_computed=self.figures.prompt_tokens_computed + prompt_tokens,
            output_tokens_generated=self.figures.output_tokens_generated + output_tokens,
        )


class _Bench:
    """Ledger, engine and pace on one clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.engine = _Engine(self.clock)
        capacity = Capacity(total_blocks=1_000, block_size=16, max_running_requests=10)
        self.ledger = Ledger(capacity, OutputLengths(quantile=0.7), wide_feed(), self.clock)
        self.pace = Pace(self.ledger, self.engine.load, self.clock)

    def admit(self, prompt_tokens: int) -> Reservation:
        had_work = self.pace.has_work
        reservation = self.ledger.admit(tenant="", prompt_tokens=prompt_tokens, max_output_tokens=100)
        self.pace.give_work(had_work=had_work)
        return reservation


def test_rates_are_measured_over_busy_time_only() -> None:
    """An hour without work changes no rate."""
    bench = _Bench()
    for _ in range(3):
        reservation = bench.admit(1_000)
        bench.engine.step(seconds=0.5, prompt_tokens=1_000, output_tokens=1)
        bench.ledger.extend(reservation, 1)
        bench.pace.after_step()
        bench.engine.step(seconds=0.1, output_tokens=1, running=0)
        bench.pace.after_step()
        bench.ledger.release(reservation, is_complete=True)
        bench.clock.advance(3_600)

    assert 2_000 == pytest.approx(bench.pace.prefill_tokens_per_s)
    assert 2 / 0.6 == pytest.approx(bench.pace.decode_tokens_per_s, rel=0.1)


def test_prompt_counted_at_its_end_is_spread_over_its_chunks() -> None:
    """An engine that counts a prompt with its last chunk is measured right all the same."""
    bench = _Bench()
    reservation = bench.admit(3_000)
    for chunk in range(3):
        bench.engine.step(seconds=1, prompt_tokens=3_000 if chunk == 2 else 0)
        if chunk == 2:
            bench.ledger.extend(reservation, 1)
        bench.pace.after_step()

    assert 1_000 == pytest.approx(bench.pace.prefill_tokens_per_s)


def test_small_steps_say_nothing_of_the_pace() -> None:
    """A prompt of twenty tokens takes a step as a long one does; how fast long ones are, long ones tell."""
    bench = _Bench()
    for tokens in (20, 300, 20, 20, 1_500, 20, 20, 20):
        reservation = bench.admit(tokens)
        bench.engine.step(seconds=0.01 + tokens / 50_000, prompt_tokens=tokens, output_tokens=1)
        bench.ledger.extend(reservation, 1)
        bench.pace.after_step()
        bench.ledger.release(reservation, is_complete=True)

    assert 2_048 / (0.01 + 2_048 / 50_000) == pytest.approx(bench.pace.prefill_tokens_per_s, rel=0.01)


def test_step_age_grows_only_while_the_engine_has_work() -> None:
    """An idle engine is not late; one with a request it has not yet told of is."""
    bench = _Bench()
    bench.clock.advance(60)
    assert 0 == bench.pace.step_age_s

    reservation = bench.admit(100)
    bench.clock.advance(3)
    assert 3 == pytest.approx(bench.pace.step_age_s)

    bench.ledger.release(reservation, is_complete=False)
    assert 0 == bench.pace.step_age_s


def test_stream_that_is_complete_but_unread_is_no_work() -> None:
    """A client that does not read makes no engine look hung."""
    bench = _Bench()
    reservation = bench.admit(100)
    bench.engine.step(seconds=0.1, prompt_tokens=100, output_tokens=1, running=0)
    bench.ledger.extend(reservation, 1)
    bench.pace.after_step()
    bench.clock.advance(60)

    assert 1 == bench.ledger.requests
    assert 0 == bench.pace.step_age_s


@pytest.mark.parametrize(("age_s", "stalled"), [(9, False), (14, False), (16, True)])
def test_pending_prefill_gives_the_engine_time(age_s: float, *, stalled: bool) -> None:
    """10,000 tokens at 2,000 a second are worth 5 seconds more than the limit of 10."""
    bench = _Bench()
    first = bench.admit(1_000)
    bench.engine.step(seconds=0.5, prompt_tokens=1_000, output_tokens=1)
    bench.ledger.extend(first, 1)
    bench.pace.after_step()
    bench.admit(10_000)
    bench.clock.advance(age_s)

    assert stalled == is_stalled(bench.pace, pending_prefill_tokens=10_000, stall_after_s=10)


def test_rate_settles_and_fades() -> None:
    """Ten a second is ten from the start, and is forgotten within minutes."""
    clock = ManualClock()
    rate = Rate(clock)
    for _ in range(100):
        clock.advance(0.1)
        rate.add(1)
    assert 10 == pytest.approx(rate.per_s, rel=0.1)

    clock.advance(120)
    assert 0.01 > rate.per_s
