from __future__ import annotations

from docs.breakers import PAGE, drawn


def test_the_diagram_is_that_of_the_table() -> None:
    """`make docs` draws it."""
    page = PAGE.read_text(encoding="utf-8")
    assert drawn(page) == page
