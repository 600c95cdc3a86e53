"""The rows of side_by_side.sh as the table of docs/benchmarks.md: python tests/gpu/side_by_side_table.py FILE ..."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(files: list[str]) -> None:
    """Print it. The first file is what the others are held against."""
    rows: list[dict[str, Any]] = [
        json.loads(line) for file in files for line in Path(file).read_text().splitlines() if line.startswith("{")
    ]
    bare = {row["concurrency"]: row for row in rows if row["path"] == rows[0]["path"]}
    print("| requests at once | path | TTFT p50 ms | in the engine | TTFT p99 ms | ITL p50 ms | tok/s |", end="")  # noqa: T201
    print(" TTFT p50 over bare ms | ITL of bare | tok/s of bare | CPU s by process |")  # noqa: T201
    print("|---|---|---|---|---|---|---|---|---|---|---|")  # noqa: T201
    for row in sorted(rows, key=lambda row: int(row["concurrency"])):
        beside = bare[row["concurrency"]]
        in_engine = row["ttft_in_engine_p50_ms"]
        cells = [
            str(row["concurrency"]),
            row["path"],
            f"{row['ttft_p50_ms']:.1f}",
            "" if in_engine is None else f"{in_engine:.1f}",
            f"{row['ttft_p99_ms']:.1f}",
            f"{row['itl_p50_ms']:.2f}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['ttft_p50_ms'] - beside['ttft_p50_ms']:+.1f}",
            f"{row['itl_p50_ms'] / beside['itl_p50_ms']:.2f}",
            f"{row['tokens_per_s'] / beside['tokens_per_s']:.3f}",
            ", ".join(f"{name} {time_s:.1f}" for name, time_s in row["cpu_s"].items()),
        ]
        print(f"| {' | '.join(cells)} |")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
