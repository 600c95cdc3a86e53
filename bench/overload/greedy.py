"""What a greedy tenant costs the others: python -m bench.overload.greedy. In virtual time, on the engine of the bench.

Four tenants use a part of what the engine can take, a quarter of it each; then one of them sends ten times as much.
The pool is small, 75 requests or so: in a larger one there is more room to keep.

One trace of two minutes has a burst or two that decide over its 99th percentile, so each figure is of four traces.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from bench.overload import policies
from bench.overload.score import Answer, quantile
from bench.overload.setting import CAPACITY_PER_S, measured_engine
from bench.overload.trace import Arrival, Trace, poisson

_TENANTS, _GREEDY, _FACTOR = "abcd", "d", 10.0
_LOADS, _SEEDS = (0.4, 0.6, 0.8), (10, 20, 30, 40)
_DURATION_S, _WARM_UP_S = 120.0, 10.0  # in which the others send 700 requests and more


def others(
    policy: str, load: float, *, factor: float, seed: int, duration_s: float = _DURATION_S
) -> tuple[list[Answer], float]:
    """What became of the other tenants' requests after the warm-up, with the greedy one at ``factor`` of its share.

    And the goodput of all, in tokens per second.
    """
    arrivals: list[Arrival] = []
    for number, tenant in enumerate(_TENANTS):
        rate = load / len(_TENANTS) * CAPACITY_PER_S * (factor if tenant == _GREEDY else 1.0)
        trace = poisson(seed=seed + number, rate=rate, duration_s=duration_s)
        arrivals += [replace(arrival, tenant=tenant) for arrival in trace.arrivals]
    arrivals.sort(key=lambda arrival: arrival.arrival_s)
    trace = Trace(name="greedy", window_s=duration_s, arrivals=tuple(arrivals))
    answers, _ = policies.answers(policy, trace, measured_engine())
    theirs = [
        answer
        for arrival, answer in zip(arrivals, answers, strict=True)
        if arrival.tenant != _GREEDY and arrival.arrival_s > _WARM_UP_S
    ]
    return theirs, sum(answer.output_tokens for answer in answers if answer.is_good) / duration_s


def _line(policy: str, load: float) -> str:
    """A line of the table."""
    figures: list[float] = []
    beside, goodput = list[Answer](), 0.0
    for factor in (1.0, _FACTOR):
        parts = [others(policy, load, factor=factor, seed=seed) for seed in _SEEDS]
        beside, goodput = [answer for part, _ in parts for answer in part], sum(part for _, part in parts) / len(parts)
        ttfts = [answer.ttft_s for answer in beside if answer.ttft_s is not None]
        figures += (1e3 * quantile(ttfts, share) for share in (0.5, 0.99))
    p50, p99, p50_beside, p99_beside = figures
    refused = sum(answer.refused_at is not None for answer in beside)
    return (
        f"| {policy} | {load} | {p50:.0f} / {p99:.0f} | {p50_beside:.0f} / {p99_beside:.0f} |"
        f" {refused} of {len(beside)} | {p99_beside / p99 - 1:+.0%} | {goodput:,.0f} |"
    )


def main() -> None:
    """Print the table, or a part of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload.greedy", description=__doc__)
    parser.add_argument("--policy", action="append", choices=(policies.TIDEGATE, policies.THREE_GATEWAYS))
    parser.add_argument("--load", action="append", type=float, help="of all four, before one is greedy")
    arguments = parser.parse_args()
    print("| policy | load without it | TTFT p50 / p99 ms | beside it | refused of | p99 | goodput of all tok/s |")
    print("|---|---|---|---|---|---|---|")
    for policy in arguments.policy or (policies.TIDEGATE, policies.THREE_GATEWAYS):
        for load in arguments.load or _LOADS:
            print(_line(policy, load), flush=True)


if __name__ == "__main__":
    main()
