"""The rows of side_by_side.sh as the table of docs/benchmarks.md: python tests/gpu/side_by_side_table.py FILE ...

The interval of a difference of medians (steady load): 95 % of a bootstrap over blocks of answers that followed another.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

_RESAMPLES = 1_000
_BLOCK = 8  # answers; what is sent close together has the same steps of the engine to wait for


def main(files: list[str]) -> None:
    """Print it. The first file is what the others are held against."""
    rows: list[dict[str, Any]] = [
        json.loads(line) for file in files for line in Path(file).read_text().splitlines() if line.startswith("{")
    ]
    bare = {row["concurrency"]: row for row in rows if row["path"] == rows[0]["path"]}
    print("| requests at once | path | TTFT p50 ms | in the engine | mean ms | p99 ms | ITL p50 ms | tok/s |", end="")  # noqa: T201
    print(" TTFT p50 over bare ms | ITL of bare | tok/s of bare | CPU s by process |")  # noqa: T201
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")  # noqa: T201
    for row in sorted(rows, key=lambda row: int(row["concurrency"])):
        beside = bare[row["concurrency"]]
        in_engine = row["ttft_in_engine_p50_ms"]
        cells = [
            str(row["concurrency"]),
            row["path"],
            f"{row['ttft_p50_ms']:.1f}",
            "" if in_engine is None else f"{in_engine:.1f}",
            f"{row['ttft_mean_ms']:.1f}",
            f"{row['ttft_p99_ms']:.1f}",
            f"{row['itl_p50_ms']:.2f}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['ttft_p50_ms'] - beside['ttft_p50_ms']:+.1f}{_interval(row, beside)}",
            f"{row['itl_p50_ms'] / beside['itl_p50_ms']:.2f}",
            f"{row['tokens_per_s'] / beside['tokens_per_s']:.3f}",
            ", ".join(f"{name} {time_s:.1f}" for name, time_s in row["cpu_s"].items()),
        ]
        print(f"| {' | '.join(cells)} |")  # noqa: T201


def _interval(row: dict[str, Any], beside: dict[str, Any]) -> str:
    """Of the difference of the two median times to the first token; nothing for bursts, and for bare itself."""
    if row is beside or "ttfts_in_turn_ms" not in row:
        return ""
    rng = random.Random(0)
    differences = sorted(
        _resampled_median(row["ttfts_in_turn_ms"], rng) - _resampled_median(beside["ttfts_in_turn_ms"], rng)
        for _ in range(_RESAMPLES)
    )
    return f" ({differences[_RESAMPLES // 40]:+.1f} to {differences[-_RESAMPLES // 40]:+.1f})"


def _resampled_median(values: Sequence[float], rng: random.Random) -> float:
    blocks = [values[at : at + _BLOCK] for at in range(0, len(values), _BLOCK)]
    return median(value for block in rng.choices(blocks, k=len(blocks)) for value in block)


if __name__ == "__main__":
    main(sys.argv[1:])
