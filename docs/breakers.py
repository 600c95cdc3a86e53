"""Draws the table of gateway/policy/breaker.py into docs/breakers.md: ``python -m docs.breakers``, or ``make docs``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.policy.breaker import TRANSITIONS, BreakerState

_BEGIN, _END = "<!-- drawn by docs/breakers.py -->\n", "<!-- end -->\n"
PAGE = Path(__file__).with_suffix(".md")


def drawn(page: str) -> str:
    """``page`` with the diagram in its place."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + "".join(f"{line}\n" for line in _diagram()) + _END + after


def _diagram() -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"  [*] --> {_name(BreakerState.CLOSED)}"
    for (state, event), after in TRANSITIONS.items():
        if after is not state:
            yield f"  {_name(state)} --> {_name(after)}: {event.value}"
    yield "```"


def _name(state: BreakerState) -> str:
    return state.value.replace("-", "_")


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
