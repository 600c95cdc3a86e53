"""Keeps the table of docs/reliability.md: one line for each fault, with the figure of its last run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def write_figure(kinds: str, figures: Mapping[str, object]) -> None:
    """Put the figures of a run into the line that begins with its ``kinds``, if there is one."""
    lines = _PAGE.read_text(encoding="utf-8").splitlines(keepends=True)
    for index, line in enumerate(lines):
        if line.startswith(f"| `{kinds}` |"):
            *cells, _, _ = line.split("|")
            lines[index] = f"{'|'.join(cells)}| {_figure(figures)} |\n"
    _PAGE.write_text("".join(lines), encoding="utf-8")


def _figure(figures: Mapping[str, object]) -> str:
    gap = f"; gap p99 {figures['gap_p99_s']} s" if figures["continued"] else ""
    return (
        f"{figures['faults']} faults, {figures['streams']} streams, {figures['continued']} continued:"
        f" {figures['finished_share']:.2%} finished, {figures['wrong']} wrong{gap};"
        f" back at work in {figures['recovery_max_s']} s at most; {figures['blocks_held_afterwards']} blocks held"
    )
