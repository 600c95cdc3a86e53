from __future__ import annotations

from pathlib import Path

from docs.reference import generated

_DOCS = Path(__file__).parents[2] / "docs"


def test_references_are_those_committed() -> None:
    """Settings and metrics stand in the docs as they are in the code; make docs writes them."""
    committed = {name: (_DOCS / name).read_text(encoding="utf-8") for name in generated()}
    assert generated() == committed, "run `make docs`"


def test_every_setting_has_a_meaning() -> None:
    """A row without words helps nobody."""
    rows = [line for line in generated()["configuration.md"].splitlines() if line.startswith("| `")]
    assert [] == [row for row in rows if row.endswith("|  |")]
