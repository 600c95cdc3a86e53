"""Writes the figures as Markdown, into the place in docs/benchmarks.md that is kept for them."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.data_plane.figures import Figures, Table, goals
from bench.data_plane.scenarios import SCENARIOS
from bench.data_plane.subjects import SUBJECTS

_BEGIN, _END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
_TITLES = {scenario.name: scenario.title for scenario in SCENARIOS}

_CPU_NOTE = """\
CPU of the gateway's process, all threads, in microseconds: per message while streams flow and none begins or ends; per
request with 16 at a time, a prompt of 100 tokens and one token of output, of turns of a thousand requests the median
and the lowest. Streams are paced at a token each 20 ms."""
_LATENCY_NOTE = """\
Time to the first token, and from the worker's sending of a token to its arrival, in microseconds. Client, gateway and
worker share the cores: these hold for comparison, and only as far as the machine was quiet."""

_Cell = Callable[[Figures], str]


def markdown(table: Table, *, command: str, versions: dict[str, str], rounds: int) -> str:
    """Command, versions, date, and the tables."""
    others = max((figures.others_share for figures in table.values()), default=0.0)
    parts = [
        f"    {command}",
        _conditions(versions, rounds=rounds, others_share=others),
        _CPU_NOTE,
        _grid(
            table,
            (
                ("flood", "flood", lambda f: _number(f.cpu_us_per_message, 1)),
                ("200 streams", "paced-200", lambda f: _number(f.cpu_us_per_message, 1)),
                ("500", "paced-500", lambda f: _number(f.cpu_us_per_message, 1)),
                ("2,000", "paced-2000", lambda f: _number(f.cpu_us_per_message, 1)),
                ("cores at 2,000", "paced-2000", lambda f: _number(f.cores, 2)),
                ("messages/s there", "paced-2000", lambda f: _number(f.messages_per_s, 0)),
                ("CPU per request", "sixteen", lambda f: _number(f.cpu_us_per_request, 0)),
                ("cheapest turn", "sixteen", lambda f: _number(f.lowest_cpu_us_per_request, 0)),
                ("PSS MiB", "idle", lambda f: _number(f.base_mib, 0)),
                ("bytes per idle stream", "idle", lambda f: _number(f.idle_stream_bytes, 0)),
            ),
        ),
        _LATENCY_NOTE,
        _grid(
            table,
            (
                ("TTFT p50, 1 at a time", "one", lambda f: _number(f.ttft_p50_us, 0)),
                ("p99", "one", lambda f: _number(f.ttft_p99_us, 0)),
                ("p50, 16 at a time", "sixteen", lambda f: _number(f.ttft_p50_us, 0)),
                ("p99", "sixteen", lambda f: _number(f.ttft_p99_us, 0)),
                *(
                    (f"{_TITLES[name]}, p50/p99", name, lambda f: _pair(f.latency_p50_us, f.latency_p99_us))
                    for name in ("paced-200", "paced-500", "paced-2000")
                ),
            ),
        ),
        "What the http2 plane is built to reach:",
        _goal_table(table),
    ]
    failures = [f"{s}, {_TITLES[n]}: {f.failed}" for (s, n), f in table.items() if f.failed]
    if failures:
        parts.append(f"Failed requests: {'; '.join(failures)}.")
    return "\n\n".join(parts) + "\n"


def _conditions(versions: dict[str, str], *, rounds: int, others_share: float) -> str:
    shown = textwrap.fill(", ".join(f"{name} {number}" for name, number in versions.items()), 120)
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores of {_processor()}, "
        f"Linux {platform.release()};\n{shown}.\nMedians of {rounds} round{'s' if rounds > 1 else ''}. Processes of "
        f"others took at most {others_share:.0%} of the machine during a measurement."
    )


def write_into(document: Path, text: str) -> None:
    """Put ``text`` between the marks of ``document``."""
    before, _, rest = document.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{document} has no place for the table: {_BEGIN} ... {_END}")
    document.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}", encoding="utf-8")


def _grid(table: Table, columns: Sequence[tuple[str, str, _Cell]]) -> str:
    rows = [["", *(title for title, _, _ in columns)], ["---"] * (len(columns) + 1)]
    for subject in SUBJECTS:
        cells = [
            cell(figures) if (figures := table.get((subject.name, scenario))) else "" for _, scenario, cell in columns
        ]
        if any(cells):
            rows.append([subject.title, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _goal_table(table: Table) -> str:
    verdicts = {True: "met", False: "**missed**", None: "not measured"}
    rows = [["goal", "bound", "measured", ""], ["---"] * 4]
    rows += [[g.what, g.bound, _number(g.measured, 2), verdicts[g.is_met]] for g in goals(table)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _pair(one: float | None, other: float | None) -> str:
    return f"{_number(one, 0)} / {_number(other, 0)}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
