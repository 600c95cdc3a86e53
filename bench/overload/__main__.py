"""Overload: the goodput of one engine behind different admission policies, under the same trace.

    make bench-overload [SEED=7] [RATE=34]
    python -m bench.overload [--trace FILE.csv | --bursty] [--seed N] [--rate N] [--json]
    python -m bench.overload --sweep
    python -m bench.overload --wire [--target GATEWAY --worker WORKER]

Without ``--wire`` the policies run in virtual time on the sim engine's own scheduler: exact, and the same at each run.
With it, gateway and worker are processes, and the trace is sent to them over gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from pathlib import Path

from bench.overload import policies, setting, wire
from bench.overload.score import Score
from bench.overload.table import json_lines, table
from bench.overload.trace import Trace, bursty, poisson, read_csv


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description="Goodput under overload.")
    parser.add_argument("--trace", type=Path, help="CSV: arrival_s,prompt_tokens,output_tokens,tenant,criticality")
    parser.add_argument("--bursty", action="store_true", help="the same rate in bursts")
    parser.add_argument("--seed", type=int, default=setting.SEED)
    parser.add_argument("--rate", type=float, default=setting.RATE, help="requests per second")
    parser.add_argument("--duration", type=float, default=setting.DURATION_S, help="of the arrivals, in seconds")
    parser.add_argument("--profile", default="h200-llama3-8b-awq", help="of the simulated machine")
    parser.add_argument("--sweep", action="store_true", help="several loads instead of one rate")
    parser.add_argument("--json", action="store_true", help="one JSON object per policy")
    parser.add_argument("--wire", action="store_true", help="real processes, over gRPC, in real time")
    parser.add_argument("--time-scale", type=float, default=4.0, help="with --wire on sim: duration of a second")
    parser.add_argument("--target", help="with --wire: a gateway that runs already")
    parser.add_argument("--worker", help="with --target: its worker")
    parser.add_argument("--processes", type=int, default=1, help="with --wire: client processes")
    parser.add_argument("--warm-up", type=float, default=10.0, help="with --wire: seconds of a trace sent before")
    arguments = parser.parse_args()
    if bool(arguments.target) != bool(arguments.worker):
        parser.error("--target and --worker go together")
    for trace, scores in _runs(arguments):
        lines = json_lines(scores, {"trace": trace.name}) if arguments.json else (f"\n{trace.name}\n", *table(scores))
        for line in lines:
            print(line, flush=True)


def _runs(arguments: argparse.Namespace) -> Iterator[tuple[Trace, list[Score]]]:
    if arguments.wire:
        trace = _trace(arguments, arguments.rate)
        yield trace, [asyncio.run(_over_the_wire(arguments, trace))]
        return
    profile = setting.measured_engine(arguments.profile)
    rates = [load * setting.CAPACITY_PER_S for load in setting.SWEEP] if arguments.sweep else [arguments.rate]
    for rate in rates:
        trace = _trace(arguments, rate)
        yield trace, [policies.run(policy, trace, profile) for policy in policies.POLICIES]


def _trace(arguments: argparse.Namespace, rate: float) -> Trace:
    if arguments.trace:
        return read_csv(arguments.trace)
    make = bursty if arguments.bursty else poisson
    return make(seed=arguments.seed, rate=rate, duration_s=arguments.duration)


async def _over_the_wire(arguments: argparse.Namespace, trace: Trace) -> Score:
    warm_up = poisson(seed=arguments.seed + 1_000, rate=arguments.rate, duration_s=arguments.warm_up)
    if arguments.target:
        stack = wire.Stack(gateway=arguments.target, worker=arguments.worker)
        return await wire.send(stack, warm_up, trace, wire.Pace(processes=arguments.processes, time_scale=1.0))
    pace = wire.Pace(processes=arguments.processes, time_scale=arguments.time_scale)
    async with wire.sim_stack(time_scale=pace.time_scale) as stack:
        return await wire.send(stack, warm_up, trace, pace)


if __name__ == "__main__":
    main()
