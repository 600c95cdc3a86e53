from __future__ import annotations

from bench.routing.traces import heavy_tailed, shared_prefixes, steady
from bench.routing.world import POLICIES, Arrival, Result, Setting, World
from worker.sim_profile import load_profile

PROFILE = load_profile("h200-llama3-8b-awq")


def run(policy: str, trace: list[Arrival], *, sample_from_s: float = 0.0, **setting: object) -> Result:
    """A run in virtual time."""
    world = World(PROFILE, POLICIES[policy], Setting(**{"gateways": 1, "seed": 1} | setting))  # type: ignore[arg-type]
    return world.run(trace, sample_from_s=sample_from_s)


def test_long_prompts_do_not_delay_the_others() -> None:
    """4 workers: TTFT p99 at most half of round-robin's and 0.8 of least-requests'."""
    trace = list(heavy_tailed(rate=45, seconds=30, seed=3))
    p99 = {
        policy: Result.quantile(run(policy, trace, workers=4).ttfts, 0.99)
        for policy in ("round-robin", "least-requests", "tidegate")
    }
    assert p99["tidegate"] <= 0.5 * p99["round-robin"]
    assert p99["tidegate"] <= 0.8 * p99["least-requests"]


def test_prefixes_are_found_again_and_nobody_starves() -> None:
    """8 workers and 3 gateways: at least 0.85 of the cached tokens of one worker, and jobs for everybody."""
    alone = run("round-robin", list(shared_prefixes(rate=10, seconds=160, seed=3, prefixes=40)), workers=1)
    trace = list(shared_prefixes(rate=80, seconds=20, seed=3, prefixes=40))
    result = run("tidegate", trace, workers=8, gateways=3)
    assert result.cached_share >= 0.85 * alone.cached_share
    assert min(result.requests) >= 0.5 * len(trace) / 8


def test_gateways_that_do_not_know_of_one_another_do_not_move_as_a_herd() -> None:
    """3 gateways and 4 workers: in 95 of 100 samples no worker is 15 % away from the mean load."""
    trace = list(steady(rate=140, seconds=14, seed=3))
    result = run("tidegate", trace, workers=4, gateways=3, sample_from_s=6)
    assert Result.quantile(result.spreads, 0.95) < 0.15


def test_a_worker_ten_times_slower_than_it_says_loses_its_share() -> None:
    """Below 5 % from the tenth second on."""
    trace = list(steady(rate=40, seconds=20, seed=3))
    result = run("tidegate", trace, workers=4, slowness={0: 10.0})
    late = [worker for at, worker in result.sent if at > 10]
    assert late.count(0) < 0.05 * len(late)
