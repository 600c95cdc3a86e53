"""What the same KV blocks are worth on many workers: python -m bench.overload.small_pools. In virtual time.

The engine of the bench is cut in pieces: each has its part of the blocks and of the batch, and takes as many times as
long for a token, so that all together do what the whole one does. What differs is in how many pools the room is that
requests need, and that some leave for others.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.overload.score import Answer, quantile
from bench.overload.setting import CAPACITY_PER_S, measured_engine
from bench.overload.trace import Arrival, poisson
from bench.overload.virtual import Agenda, VirtualEngine
from bench.overload.virtual_gateway import HOP_S, VirtualGateway
from bench.overload.virtual_worker import VirtualWorker
from worker.sim_profile import SimProfile

WORKERS = (1, 2, 4, 8, 16)
_SEEDS, _DURATION_S, _WARM_UP_S = (10, 20), 90.0, 10.0
_LOOKS_PER_S = 10.0
_TENANTS, _GREEDY, _GREEDY_LOAD, _GREEDY_FACTOR = "abcd", "d", 0.6, 10.0
_MIXED_LOAD, _CRITICAL_SHARE = 1.5, 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """Of a run, after its warm-up: the mean share of blocks that is reserved, and of those that room is kept for."""

    goodput_tokens_per_s: float
    reserved_share: float
    others_ttft_s: Sequence[float]
    others_refused: int


def greedy(*, seed: int, duration_s: float, factor: float = _GREEDY_FACTOR) -> list[Arrival]:
    """Four tenants with equal shares of six tenths of what the engine takes, of which the last sends more."""
    arrivals: list[Arrival] = []
    for number, tenant in enumerate(_TENANTS):
        rate = _GREEDY_LOAD / len(_TENANTS) * CAPACITY_PER_S * (factor if tenant == _GREEDY else 1.0)
        trace = poisson(seed=seed + number, rate=rate, duration_s=duration_s)
        arrivals += [replace(arrival, tenant=tenant) for arrival in trace.arrivals]
    return sorted(arrivals, key=lambda arrival: arrival.arrival_s)


def mixed(*, seed: int, duration_s: float) -> list[Arrival]:
    """Half as much again as the engine takes, three tenths of it critical."""
    arrivals: list[Arrival] = []
    for number, share in enumerate((_CRITICAL_SHARE, 1 - _CRITICAL_SHARE)):
        trace = poisson(seed=seed + number, rate=share * _MIXED_LOAD * CAPACITY_PER_S, duration_s=duration_s)
        arrivals += [replace(one, criticality="SHEDDABLE" if number else "CRITICAL") for one in trace.arrivals]
    return sorted(arrivals, key=lambda arrival: arrival.arrival_s)


def run(arrivals: Sequence[Arrival], *, workers: int, gateways: int, duration_s: float) -> Worth:
    """Send ``arrivals`` through any of so many gateways to so many parts of the engine."""
    agenda, profile, rng = Agenda(), _part(measured_engine(), workers), random.Random(0)
    fleet = [VirtualWorker(agenda, VirtualEngine(profile, agenda), profile) for _ in range(workers)]
    doors = [VirtualGateway(agenda, fleet, number) for number in range(gateways)]
    answers = [Answer(arrival_s=arrival.arrival_s) for arrival in arrivals]
    for arrival, answer in zip(arrivals, answers, strict=True):
        agenda.at(arrival.arrival_s + HOP_S, partial(rng.choice(doors).enter, arrival, answer))
    reserved: list[float] = []

    def look() -> None:
        blocks = sum(worker.books.ledger.reserved_blocks for worker in fleet)
        reserved.append(blocks / (workers * profile.total_blocks))

    for number in range(round(_WARM_UP_S * _LOOKS_PER_S), round(duration_s * _LOOKS_PER_S)):
        agenda.at(number / _LOOKS_PER_S, look)
    agenda.run()
    pairs = [pair for pair in zip(arrivals, answers, strict=True) if pair[0].arrival_s > _WARM_UP_S]
    others = [answer for arrival, answer in pairs if _is_kept_for(arrival)]
    return Worth(
        goodput_tokens_per_s=sum(one.output_tokens for _, one in pairs if one.is_good) / (duration_s - _WARM_UP_S),
        reserved_share=sum(reserved) / len(reserved),
        others_ttft_s=[answer.ttft_s for answer in others if answer.ttft_s is not None],
        others_refused=sum(answer.refused_at is not None for answer in others),
    )


def _is_kept_for(arrival: Arrival) -> bool:
    return arrival.tenant != _GREEDY and arrival.criticality != "SHEDDABLE"


def _part(whole: SimProfile, parts: int) -> SimProfile:
    timing = whole.timing
    return replace(
        whole,
        total_blocks=whole.total_blocks // parts,
        max_running_requests=whole.max_running_requests // parts,
        max_batched_tokens=whole.max_batched_tokens // parts,
        timing=replace(
            timing,
            prefill_token_s=parts * timing.prefill_token_s,
            decode_request_s=parts * timing.decode_request_s,
        ),
    )


def _line(load: str, workers: int, gateways: int) -> str:
    """A line of the table: the means of several traces, and the quantiles of all."""
    make = {"greedy": greedy, "mixed": mixed}[load]
    runs = [
        run(make(seed=seed, duration_s=_DURATION_S), workers=workers, gateways=gateways, duration_s=_DURATION_S)
        for seed in _SEEDS
    ]
    ttfts = [ttft_s for one in runs for ttft_s in one.others_ttft_s]
    return (
        f"| {load} | {gateways} | {workers} | {sum(one.goodput_tokens_per_s for one in runs) / len(runs):,.0f} |"
        f" {sum(one.reserved_share for one in runs) / len(runs):.2f} |"
        f" {1e3 * quantile(ttfts, 0.5):.0f} / {1e3 * quantile(ttfts, 0.99):.0f} |"
        f" {sum(one.others_refused for one in runs)} |"
    )


def main() -> None:
    """Print the table, or a part of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload.small_pools", description=__doc__)
    parser.add_argument("--load", action="append", choices=("greedy", "mixed"))
    parser.add_argument("--gateways", action="append", type=int)
    arguments = parser.parse_args()
    print(
        "| load | gateways | workers | goodput tok/s | blocks reserved | others' TTFT p50 / p99 ms | others refused |"
    )
    print("|---|---|---|---|---|---|---|")
    for load in arguments.load or ("greedy", "mixed"):
        for gateways in arguments.gateways or (1,):
            for workers in WORKERS:
                print(_line(load, workers, gateways), flush=True)


if __name__ == "__main__":
    main()
