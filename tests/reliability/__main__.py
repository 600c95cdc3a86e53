"""``python -m tests.reliability``: the long form; its figures go into docs/reliability.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.reliability import hedged, herd, slow_readers, vanishing, vllm_kills
from tests.reliability.nemesis import FAULTS
from tests.reliability.table import write_figure
from tests.reliability.trial import Plan, run
from tests.reliability.verdict import Verdict

_OWN_NETWORK = "TIDEGATE_TEST_OWN_NETWORK"


def main() -> int:
    """Returns 1 when an invariant was broken."""
    arguments = _parse()
    if {"partition", "soak"}.intersection(re.split("[,+]", arguments.faults)) and _OWN_NETWORK not in os.environ:
        # Only there may packets be dropped. It ends with this process. Needs root, and nft.
        script = 'ip link set lo up && exec "$0" -m tests.reliability "$@"'
        command = ("unshare", "--net", "sh", "-c", script, sys.executable, *sys.argv[1:])
        os.execvpe(command[0], command, os.environ | {_OWN_NETWORK: "1"})  # noqa: S606 - no shell is wanted
    is_sound = True
    for kinds in arguments.faults.split(","):
        verdict = asyncio.run(_verdict(kinds, arguments))
        sys.stdout.write(f"{kinds}: {json.dumps(verdict.details)}\n")
        sys.stdout.writelines(f"  WRONG {fault}\n" for fault in verdict.wrong[:20])
        write_figure(kinds, verdict.figure)
        if arguments.report is not None:
            document = {"faults": kinds, **verdict.details, "wrong": verdict.wrong}
            arguments.report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        is_sound = is_sound and not verdict.wrong
    return 0 if is_sound else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds for each kind of fault")
    parser.add_argument(
        "--faults",
        default="kill,stop,restart",
        help="kinds, comma-separated; + mixes them in one run, and `soak` mixes all",
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="faults of each kind at most")
    parser.add_argument("--tokens", default="60-150", help="length of a stream, from-to")
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between faults, at least")
    parser.add_argument("--every", type=float, default=0.0, help="seconds from one fault's beginning to the next one's")
    parser.add_argument("--time-scale", type=float, default=4.0, help="duration of a simulated second")
    parser.add_argument("--streams", type=int, default=20, help="at a time")
    parser.add_argument("--report", type=Path, help="file for the figures, as JSON")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gateways", type=int, default=1)
    return parser.parse_args()


async def _verdict(kinds: str, arguments: argparse.Namespace) -> Verdict:
    if kinds == "vllm-kill":
        return await vllm_kills.run(seed=arguments.seed, kills=min(10, arguments.count), streams=2)
    if kinds == "vanishing":
        return await vanishing.run(seed=arguments.seed, clients=min(10_000, arguments.count))
    if kinds == "slow-readers":
        return await slow_readers.run()
    if kinds == "hedge":
        return await hedged.run(seed=arguments.seed, duration_s=arguments.duration)
    if kinds == "herd-after-kill":
        return await herd.run(clients=min(6_000, arguments.count))
    shortest, _, longest = arguments.tokens.partition("-")
    plan = Plan(
        seed=arguments.seed,
        duration_s=arguments.duration,
        faults=arguments.count,
        kinds=sorted(FAULTS) if kinds == "soak" else kinds.split("+"),
        workers=arguments.workers,
        gateways=arguments.gateways,
        streams=arguments.streams,
        tokens=(int(shortest), int(longest)),
        time_scale=arguments.time_scale,
        pause_s=arguments.pause,
        every_s=arguments.every,
    )
    report = await run(plan)
    told = Counter(history.told for history in report.histories if history.told)
    return Verdict(
        figure=report.figure(),
        details={"plan": asdict(plan), **report.summary(), "told": dict(told.most_common(10))},
        wrong=report.wrong,
    )


if __name__ == "__main__":
    sys.exit(main())
