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

from tests.reliability.nemesis import FAULTS
from tests.reliability.table import write_figure
from tests.reliability.trial import Plan, Report, run

_OWN_NETWORK = "TIDEGATE_TEST_OWN_NETWORK"


def main() -> int:
    """Returns 1 when an invariant was broken."""
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
    parser.add_argument("--report", type=Path, help="file for the figures and the faults, as JSON")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gateways", type=int, default=1)
    arguments = parser.parse_args()
    if {"partition", "soak"}.intersection(re.split("[,+]", arguments.faults)) and _OWN_NETWORK not in os.environ:
        # Only there may packets be dropped. It ends with this process. Needs root, and nft.
        script = 'ip link set lo up && exec "$0" -m tests.reliability "$@"'
        command = ("unshare", "--net", "sh", "-c", script, sys.executable, *sys.argv[1:])
        os.execvpe(command[0], command, os.environ | {_OWN_NETWORK: "1"})  # noqa: S606 - no shell is wanted
    is_sound = True
    shortest, _, longest = arguments.tokens.partition("-")
    for kinds in arguments.faults.split(","):
        plan = Plan(
            seed=arguments.seed,
            duration_s=arguments.duration,
            faults=arguments.count,
            kinds=sorted(FAULTS) if kinds == "soak" else kinds.split("+"),
            workers=arguments.workers,
            gateways=arguments.gateways,
            streams=arguments.streams,
            tokens=(int(shortest), int(longest)),
            pause_s=arguments.pause,
            every_s=arguments.every,
            time_scale=arguments.time_scale,
        )
        report = asyncio.run(run(plan))
        figures = report.summary()
        sys.stdout.write(f"{kinds}: {json.dumps(figures)}\n")
        sys.stdout.writelines(f"  WRONG {fault}\n" for fault in report.wrong[:20])
        told = Counter(history.told for history in report.histories if history.told)
        sys.stdout.writelines(f"  {count} x {words}\n" for words, count in told.most_common(10))
        write_figure(kinds, figures)
        if arguments.report is not None:
            arguments.report.write_text(json.dumps(_document(kinds, plan, report), indent=1) + "\n", encoding="utf-8")
        is_sound = is_sound and not report.wrong and not report.blocks_held
    return 0 if is_sound else 1


def _document(kinds: str, plan: Plan, report: Report) -> dict[str, object]:
    return {
        "faults": kinds,
        "plan": asdict(plan),
        "figures": report.summary(),
        "wrong": report.wrong,
        "timeline": [{"at_s": at_s, "fault": kind, "lasted_s": lasted_s} for at_s, kind, lasted_s in report.timeline],
    }


if __name__ == "__main__":
    sys.exit(main())
