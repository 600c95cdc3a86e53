from __future__ import annotations

from pathlib import Path

from docs.errors import errors_reference
from docs.reference import generated

_DOCS = Path(__file__).parents[2] / "docs"


def test_errors_page_is_the_error_tables() -> None:
    """What users read about errors is what the services do."""
    assert errors_reference() == (_DOCS / "errors.md").read_text(encoding="utf-8"), "run `make docs`"


def test_references_are_the_settings_and_the_catalogue() -> None:
    """Settings and metrics stand in the docs as they are in the code."""
    committed = {name: (_DOCS / name).read_text(encoding="utf-8") for name in generated()}
    assert generated() == committed, "run `make docs` (python -m docs.reference)"


def test_every_setting_has_a_meaning() -> None:
    """A row without words helps nobody."""
    rows = [line for line in generated()["configuration.md"].splitlines() if line.startswith("| `")]
    assert [] == [row for row in rows if row.endswith("|  |")]
