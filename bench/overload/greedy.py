"""What a greedy tenant costs the others: python -m bench.overload.greedy. In virtual time, on the engine of the bench.

Four tenants use a part of what the engine can take, a quarter of it each; then one of them sends ten times as much.
The pool is small, 75 requests or so: in a larger one there is more room to keep.
"""

from __future__ import annotations

from dataclasses import replace

from bench.overload import policies
from bench.overload.score import Answer, quantile
from bench.overload.setting import CAPACITY_PER_S, measured_engine
from bench.overload.trace import Arrival, Trace, poisson

_TENANTS, _GREEDY, _FACTOR = "abcd", "d", 10.0
_DURATION_S, _WARM_UP_S = 120.0, 10.0  # in which the others send 700 requests and more


def others(policy: str, load: float, *, factor: float) -> tuple[list[Answer], float]:
    """What became of the other tenants' requests after the warm-up, with the greedy one at ``factor`` of its share.

    And the goodput of all, in tokens per second.
    """
    arrivals: list[Arrival] = []
    for seed, tenant in enumerate(_TENANTS, start=10):
        rate = load / len(_TENANTS) * CAPACITY_PER_S * (factor if tenant == _GREEDY else 1.0)
        trace = poisson(seed=seed, rate=rate, duration_s=_DURATION_S)
        arrivals += [replace(arrival, tenant=tenant) for arrival in trace.arrivals]
    arrivals.sort(key=lambda arrival: arrival.arrival_s)
    trace = Trace(name="greedy", window_s=_DURATION_S, arrivals=tuple(arrivals))
    answers, _ = policies.answers(policy, trace, measured_engine())
    theirs = [
        answer
        for arrival, answer in zip(arrivals, answers, strict=True)
        if arrival.tenant != _GREEDY and arrival.arrival_s > _WARM_UP_S
    ]
    return theirs, sum(answer.output_tokens for answer in answers if answer.is_good) / _DURATION_S


def main() -> None:
    """Print the table."""
    print("| policy | load without it | TTFT p50 / p99 ms | beside it | refused of | p99 | goodput of all tok/s |")
    print("|---|---|---|---|---|---|---|")
    for policy in (policies.TIDEGATE, policies.THREE_GATEWAYS):
        for load in (0.4, 0.6, 0.8):
            (before, _), (beside, goodput) = (others(policy, load, factor=factor) for factor in (1.0, _FACTOR))
            ttfts = [[answer.ttft_s for answer in part if answer.ttft_s is not None] for part in (before, beside)]
            (p50, p99), (p50_beside, p99_beside) = (
                [1e3 * quantile(part, share) for share in (0.5, 0.99)] for part in ttfts
            )
            refused = sum(answer.refused_at is not None for answer in beside)
            print(
                f"| {policy} | {load} | {p50:.0f} / {p99:.0f} | {p50_beside:.0f} / {p99_beside:.0f} |"
                f" {refused} of {len(beside)} | {p99_beside / p99 - 1:+.0%} |"
                f" {goodput:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
