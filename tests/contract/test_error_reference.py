from __future__ import annotations

from pathlib import Path

from docs.errors import errors_reference

_PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_errors_page_is_the_error_tables() -> None:
    """What users read about errors is what the services do."""
    assert errors_reference() == _PAGE.read_text(encoding="utf-8"), "run `make docs`"
