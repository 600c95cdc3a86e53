from __future__ import annotations

from pathlib import Path

import pytest

from bench.overload import small_pools
from bench.overload.greedy import others
from bench.overload.policies import BARE, ORACLE, RESERVE_CAP, THREE_GATEWAYS, TIDEGATE, run
from bench.overload.score import Answer, EngineFigures, quantile, score
from bench.overload.setting import CAPACITY_PER_S, DURATION_S, RATE, SEED, measured_engine
from bench.overload.trace import Arrival, bursty, poisson, read_csv

_ENGINE = measured_engine()
_TRACE = poisson(seed=SEED, rate=RATE, duration_s=DURATION_S)

# One NVIDIA H200, vLLM 0.32: served, goodput in tokens per second, preemptions.
_MEASURED = {BARE: (909, 3286, 302), RESERVE_CAP: (517, 5991, 0), ORACLE: (670, 7559, 0)}


@pytest.mark.parametrize("policy", _MEASURED)
def test_simulation_does_what_the_h200_did(policy: str) -> None:
    """The same trace under the same policy: within 5 %."""
    served, goodput, preemptions = _MEASURED[policy]

    simulated = run(policy, _TRACE, _ENGINE)

    assert served == pytest.approx(simulated.served, rel=0.05)
    assert goodput == pytest.approx(simulated.goodput_tokens_per_s, rel=0.05)
    assert preemptions == pytest.approx(simulated.preemptions, rel=0.05)


def test_goodput_holds_under_overload() -> None:
    """At half as much again as the engine takes: 2.3 times the bare engine, and what true lengths would bring."""
    tidegate, bare, oracle = (run(policy, _TRACE, _ENGINE) for policy in (TIDEGATE, BARE, ORACLE))

    assert tidegate.goodput_tokens_per_s >= 2.3 * bare.goodput_tokens_per_s
    assert tidegate.goodput_tokens_per_s >= 0.97 * oracle.goodput_tokens_per_s
    assert tidegate.hint_median_error < 0.3
    assert tidegate.refusal_p99_s < 0.05
    assert tidegate.refused_after_waiting <= 0.15 * tidegate.refused
    assert 40 >= tidegate.preemptions


def test_gateways_that_do_not_know_one_another_wait_in_one_line() -> None:
    """What each of three foretells holds, and little of the goodput is lost to their being three."""
    one, three = (run(policy, _TRACE, _ENGINE) for policy in (TIDEGATE, THREE_GATEWAYS))

    assert three.hint_median_error < 0.3
    assert three.refused_after_waiting <= 0.25 * three.refused
    assert three.goodput_tokens_per_s >= 0.95 * one.goodput_tokens_per_s


def test_goodput_does_not_collapse_when_the_load_grows() -> None:
    """At twice what the engine takes it is 95 % of the highest, at ten times as much 90 %."""
    double, quadruple, tenfold = (
        run(TIDEGATE, poisson(seed=SEED, rate=load * CAPACITY_PER_S, duration_s=15.0), _ENGINE) for load in (2, 4, 10)
    )
    peak = max(score.goodput_tokens_per_s for score in (double, quadruple, tenfold))

    assert double.goodput_tokens_per_s >= 0.95 * peak
    assert tenfold.goodput_tokens_per_s >= 0.9 * peak
    assert tenfold.refusal_p99_s < 0.05


def test_a_greedy_tenant_through_three_gateways_leaves_the_others_their_first_tokens() -> None:
    """Ten times its share raises the 99th percentile of the others' by a fifth at most, and none of them is refused."""
    before, beside = (others(THREE_GATEWAYS, 0.6, factor=factor, seed=20, duration_s=45.0)[0] for factor in (1.0, 10.0))
    p99_s, p99_beside_s = (
        quantile([answer.ttft_s for answer in answers if answer.ttft_s is not None], 0.99)
        for answers in (before, beside)
    )

    assert [] == [answer for answer in beside if answer.refused_at is not None]
    assert p99_beside_s <= 1.2 * p99_s


def test_room_beside_a_greedy_tenant_is_not_kept_on_each_of_many_workers() -> None:
    """In eight small pools as many blocks are used as in one that holds as much, and nobody else is refused."""
    arrivals = small_pools.greedy(seed=10, duration_s=25.0)
    one, eight = (small_pools.run(arrivals, workers=workers, gateways=1, duration_s=25.0) for workers in (1, 8))

    assert eight.reserved_share >= 0.85 * one.reserved_share
    assert eight.goodput_tokens_per_s >= 0.95 * one.goodput_tokens_per_s
    assert 0 == eight.others_refused


def test_a_run_can_be_repeated() -> None:
    """Virtual time has no noise."""
    trace = bursty(seed=3, rate=60, duration_s=5)

    assert run(TIDEGATE, trace, _ENGINE) == run(TIDEGATE, trace, _ENGINE)


def test_bursts_keep_the_rate() -> None:
    """Over a long time as many come as without them."""
    assert 10_000 == pytest.approx(len(bursty(seed=1, rate=10, duration_s=1_000).arrivals), rel=0.1)


def test_latency_counts_from_the_intended_arrival() -> None:
    """What was late to be sent is late; and what was late brings nothing."""
    late = Answer(arrival_s=1.0, first_token_at=3.5, last_token_at=3.6, output_tokens=10, is_complete=True)
    figures = EngineFigures(preemptions=0, highest_kv_use=0.0)

    result = score("", [late], window_s=10.0, engine=figures)

    assert (2.5, 0.0) == (result.ttft_p99_s, result.goodput_tokens_per_s)


def test_trace_file(tmp_path: Path) -> None:
    """Columns may be left out that have defaults; rows are put in order."""
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens,tenant\n2.5,10,20,a\n0.5,30,40,\n", encoding="utf-8")

    assert (
        Arrival(arrival_s=0.5, prompt_tokens=30, output_tokens=40),
        Arrival(arrival_s=2.5, prompt_tokens=10, output_tokens=20, tenant="a"),
    ) == read_csv(path).arrivals


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("arrival_s,prompt_tokens\n1,2\n", "the columns are"),
        ("arrival_s,prompt_tokens,output_tokens\n1,x,3\n", "line 2"),
        ("arrival_s,prompt_tokens,output_tokens\n1,2,3000\n", "line 2: output_tokens"),
        ("arrival_s,prompt_tokens,output_tokens\n", "no arrival"),
    ],
)
def test_unusable_trace_file_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    """The fault is named with its line."""
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match=fault):
        read_csv(path)
