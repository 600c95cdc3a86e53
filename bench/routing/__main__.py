"""Routing policies side by side, in virtual time: ``python -m bench.routing`` prints the tables of docs/benchmarks.md.

``--seed`` gives another run, ``--scale`` a shorter or longer one; ``--json`` one object per line instead of the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from bench.routing.traces import heavy_tailed, shared_prefixes, steady
from bench.routing.world import IDEAL, POLICIES, Result, Setting, World, round_robin
from worker.sim_profile import load_profile

_PROFILE = "h200-llama3-8b-awq"
Row = dict[str, str | int | float]


def _ms(values: Iterable[float], share: float) -> float:
    return round(Result.quantile(values, share) * 1000)


def heavy_rows(seed: int, scale: float) -> Iterator[Row]:
    """4 workers, one gateway, prompts of which a few are very long."""
    profile = load_profile(_PROFILE)
    for rate in (30, 45, 60):
        for name, policy in POLICIES.items():
            world = World(profile, policy, Setting(workers=4, gateways=1, seed=seed))
            result = world.run(heavy_tailed(rate=rate, seconds=60 * scale, seed=seed))
            yield {
                "requests/s": rate,
                "policy": name,
                "TTFT p50 ms": _ms(result.ttfts, 0.5),
                "TTFT p99 ms": _ms(result.ttfts, 0.99),
                "p99 of prompts < 1,000 ms": _ms(result.short_ttfts, 0.99),
            }


def prefix_rows(seed: int, scale: float) -> Iterator[Row]:
    """8 workers, 3 gateways, prefixes of 2,000 tokens; beside one worker at an eighth of the rate."""
    profile = load_profile(_PROFILE)
    for prefixes in (8, 40, 200):
        trace = partial(shared_prefixes, seed=seed, prefixes=prefixes)
        one_world = World(profile, round_robin, Setting(workers=1, gateways=1, seed=seed))
        alone = one_world.run(trace(rate=10, seconds=300 * scale))
        for name, policy in POLICIES.items():
            world = World(profile, policy, Setting(workers=8, gateways=3, seed=seed))
            result = world.run(trace(rate=80, seconds=37.5 * scale))
            yield {
                "prefixes": prefixes,
                "policy": name,
                "cached share": round(result.cached_share, 3),
                "of one worker's": round(result.cached_share / alone.cached_share, 3),
                "fewest requests of a worker": min(result.requests),
                "most": max(result.requests),
            }


def spread_rows(seed: int, scale: float) -> Iterator[Row]:
    """4 workers, 3 gateways that know nothing of one another; and one that knows everything."""
    profile = load_profile(_PROFILE)
    for rate in (60, 120, 150):
        for name, policy in (POLICIES | IDEAL).items():
            world = World(profile, policy, Setting(workers=4, gateways=3, seed=seed))
            result = world.run(steady(rate=rate, seconds=30 * scale, seed=seed), sample_from_s=8 * scale)
            yield {
                "requests/s": rate,
                "policy": name,
                "spread p50": round(Result.quantile(result.spreads, 0.5), 3),
                "spread p95": round(Result.quantile(result.spreads, 0.95), 3),
                "TTFT p99 ms": _ms(result.ttfts, 0.99),
            }


def slow_rows(seed: int, scale: float) -> Iterator[Row]:
    """4 workers of which one is ten times slower and says nothing of it."""
    profile = load_profile(_PROFILE)
    for name, policy in POLICIES.items():
        world = World(profile, policy, Setting(workers=4, gateways=1, seed=seed, slowness={0: 10.0}))
        result = world.run(steady(rate=40, seconds=60 * scale, seed=seed))
        late = [worker for at, worker in result.sent if at > 10]  # noqa: PLR2004 - the goal's seconds
        yield {
            "policy": name,
            "share of the slow worker after 10 s": round(late.count(0) / len(late), 3),
            "TTFT p99 ms": _ms(result.ttfts, 0.99),
        }


TABLES: dict[str, Callable[[int, float], Iterator[Row]]] = {
    "heavy": heavy_rows,
    "prefixes": prefix_rows,
    "spread": spread_rows,
    "slow": slow_rows,
}


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="length of the runs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for table in arguments.tables or TABLES:
        rows = TABLES[table](arguments.seed, arguments.scale)
        if arguments.json:
            for row in rows:
                print(json.dumps({"table": table, **row}), flush=True)
        else:
            _print_table(rows)


def _print_table(rows: Iterator[Row]) -> None:
    for number, row in enumerate(rows):
        if not number:
            print("\n| " + " | ".join(row) + " |\n|" + "---|" * len(row))
        print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
