"""Keeps the table of docs/reliability.md: one line for each fault, with the figure of its last run."""

from __future__ import annotations

from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def write_figure(kinds: str, figure: str) -> None:
    """Put the figure of a run into the line that begins with its ``kinds``, if there is one."""
    lines = _PAGE.read_text(encoding="utf-8").splitlines(keepends=True)
    for index, line in enumerate(lines):
        if line.startswith(f"| `{kinds}` |"):
            *cells, _, _ = line.split("|")
            lines[index] = f"{'|'.join(cells)}| {figure} |\n"
    _PAGE.write_text("".join(lines), encoding="utf-8")
