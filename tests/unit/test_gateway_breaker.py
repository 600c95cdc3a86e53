from __future__ import annotations

import random

import pytest

from gateway.policy.breaker import TRANSITIONS, Breaker, BreakerEvent, BreakerLimits, BreakerState
from gateway.policy.ejection import reprieved
from gateway.policy.outcomes import Outcome
from gateway.policy.stall import is_silent, is_stalled
from gateway.policy.standing import NO_PASS, Phase, Standing
from tests.fakes.worker_loads import worker_load

LIMITS = BreakerLimits(failures=2, probes=1, successes=2, delay_s=1.0, max_delay_s=5.0)


def breaker() -> Breaker:
    """One that opens for 0.8 to 1.2 s at first."""
    return Breaker(LIMITS, random.Random(0))


def opened(now: float = 0.0) -> Breaker:
    """One that has just opened."""
    one = breaker()
    for _ in range(LIMITS.failures):
        one.fail(one.take(now), now)
    return one


def test_the_table_has_an_answer_for_every_event_in_every_state() -> None:
    """There is no combination that nobody has thought of."""
    assert {(state, event) for state in BreakerState for event in BreakerEvent} == set(TRANSITIONS)


def test_failures_in_a_row_open_it() -> None:
    """A success between them begins the count anew."""
    one = breaker()
    for is_failure in (True, False, True):
        permit = one.take(0.0)
        if is_failure:
            one.fail(permit, 0.0)
        else:
            one.succeed(permit, 0.0)
    states = [one.state]
    one.fail(one.take(0.0), 0.0)
    assert [BreakerState.CLOSED, BreakerState.OPEN] == [*states, one.state]


def test_open_it_lets_nothing_through_until_its_delay_is_over() -> None:
    """Then as many as it has probes."""
    one = opened()
    assert not one.can_take(0.79)
    with pytest.raises(ValueError, match="open"):
        one.take(0.79)
    assert one.can_take(1.2)
    one.take(1.2)
    assert (BreakerState.HALF_OPEN, False) == (one.state, one.can_take(9.0))


def test_enough_successful_probes_close_it() -> None:
    """One after the other, as far as the quota goes."""
    one = opened()
    for _ in range(LIMITS.successes):
        one.succeed(one.take(2.0), 2.0)
    assert (BreakerState.CLOSED, 2.0) == (one.state, one.closed_at)


def test_a_failed_probe_opens_it_for_twice_as_long() -> None:
    """And so on, up to the longest delay."""
    one, now, delays = opened(), 0.0, []
    for _ in range(5):
        delays.append(one.retry_in_s(now))
        now += delays[-1]
        one.fail(one.take(now), now)
    for expected, delay in zip((1.0, 2.0, 4.0, 5.0, 5.0), delays, strict=True):
        assert expected == pytest.approx(delay, rel=0.21)


def test_a_probe_that_tells_nothing_makes_room_for_the_next() -> None:
    """A client that leaves must not keep a worker on probation."""
    one = opened()
    one.ignore(one.take(2.0))
    assert one.can_take(2.0)


def test_jobs_from_before_it_opened_count_no_more() -> None:
    """A dead worker's streams end over some time, and say all the same."""
    one = breaker()
    permits = [one.take(0.0) for _ in range(10)]
    news = [one.fail(permit, 0.0) for permit in permits]
    assert [True] * 2 + [False] * 8 == news
    assert one.can_take(2.0)
    late = one.take(2.0)
    assert not one.fail(permits[0], 2.0)
    one.succeed(permits[0], 2.0)
    assert BreakerState.HALF_OPEN is one.state
    assert one.fail(late, 2.0)


def test_a_worker_that_starts_anew_is_tried_at_once() -> None:
    """Its delay was for another process."""
    one = opened()
    one.shake_hands(0.1)
    assert (BreakerState.HALF_OPEN, True) == (one.state, one.can_take(0.1))


@pytest.mark.parametrize("field", ["failures", "probes", "successes", "delay_s"])
def test_limits_of_nothing_are_refused(field: str) -> None:
    """A breaker without probes would never close."""
    with pytest.raises(ValueError, match="at least 1"):
        BreakerLimits(**{"failures": 1, field: 0})


@pytest.mark.parametrize(
    ("is_lost", "has_begun", "phase"),
    [
        (True, False, Phase.CONNECT),
        (True, True, Phase.DECODE),
        (False, False, Phase.PREFILL),
        (False, True, Phase.DECODE),
    ],
)
def test_a_failure_counts_in_its_phase_only(*, is_lost: bool, has_begun: bool, phase: Phase) -> None:
    """The others know nothing of it."""
    standing = Standing(lambda _, limits: Breaker(limits, random.Random(0)))
    for _ in range(3):
        leave = standing.take(0.0) if standing.can_take(0.0) else NO_PASS
        if has_begun:
            standing.begin(leave, 0.0)
        standing.close(leave, Outcome.FAILED, 0.0, has_begun=has_begun, is_lost=is_lost)
    assert {phase} == {name for name, state in standing.states.items() if state is BreakerState.OPEN}


@pytest.mark.parametrize("outcome", [Outcome.IGNORED, Outcome.REFUSED])
@pytest.mark.parametrize("has_begun", [True, False])
def test_what_is_no_failure_opens_nothing(outcome: Outcome, *, has_begun: bool) -> None:
    """Bad arguments, full workers and clients that leave: however many, in any state."""
    standing = Standing(lambda _, limits: Breaker(limits, random.Random(0)))
    standing.stall(0.0)
    for _ in range(20):
        leave = standing.take(10.0)
        if has_begun:
            standing.begin(leave, 10.0)
        assert not standing.close(leave, outcome, 10.0, has_begun=has_begun, is_lost=False)
    assert BreakerState.OPEN not in standing.states.values()


def test_the_jobs_that_die_with_a_worker_are_news_only_at_first() -> None:
    """The retry budget is for fleets that fail, and one death is no such thing."""
    standing = Standing(lambda _, limits: Breaker(limits, random.Random(0)))
    leaves = [standing.take(0.0) for _ in range(50)]
    news = [standing.close(leave, Outcome.FAILED, 0.0, has_begun=False, is_lost=True) for leave in leaves]
    assert 2 == sum(news)


def test_a_worker_that_recovered_starts_slowly() -> None:
    """Its weight grows from a tenth to the whole in five seconds."""
    standing = Standing(lambda _, limits: Breaker(limits, random.Random(0)))
    assert 1.0 == standing.weight(0.0)
    standing.stall(0.0)
    for _ in range(2):
        leave = standing.take(1.0)
        standing.begin(leave, 1.0)
        standing.close(leave, Outcome.SUCCESS, 1.0, has_begun=True, is_lost=False)
    assert [0.1, 0.55, 1.0] == pytest.approx([standing.weight(now) for now in (1.0, 3.5, 6.0)])


@pytest.mark.parametrize(
    ("total", "out", "kept"),
    [
        (1, {"a": 1.0}, {"a"}),
        (2, {"a": 1.0}, set()),
        (2, {"a": 1.0, "b": 2.0}, {"a"}),
        (4, {"a": 3.0, "b": 2.0, "c": 1.0}, {"c"}),
        (4, {}, set()),
    ],
)
def test_a_gateway_never_leaves_out_more_than_half_of_its_fleet(
    total: int, out: dict[str, float], kept: set[str]
) -> None:
    """Those stay that would be out for the shortest time."""
    assert kept == set(reprieved(out, total=total))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"engine_step_age_s": 1.9}, False, id="a long step"),
        pytest.param({"engine_step_age_s": 2.1}, True, id="no step without a prompt"),
        pytest.param(
            {"engine_step_age_s": 30.0, "pending_prefill_tokens": 120_000, "prefill_tokens_per_s": 4_000.0},
            False,
            id="a prefill of 30 s",
        ),
        pytest.param(
            {"engine_step_age_s": 3.0, "pending_prefill_tokens": 100, "prefill_tokens_per_s": 4_000.0},
            True,
            id="a small prompt that takes 3 s",
        ),
        pytest.param({"engine_step_age_s": 300.0, "pending_prefill_tokens": 1}, False, id="the rate is not known"),
    ],
)
def test_a_stall_is_judged_by_the_engines_own_pace(fields: dict[str, float], *, expected: bool) -> None:
    """A busy engine is not shot."""
    assert expected == is_stalled(worker_load(**fields))


def test_a_worker_that_says_nothing_for_two_seconds_is_silent() -> None:
    """It reports every second, whatever it does."""
    load = worker_load(received_at=10.0)
    assert [False, True] == [is_silent(load, now) for now in (11.9, 12.1)]
