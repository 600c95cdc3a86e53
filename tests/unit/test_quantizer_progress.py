from __future__ import annotations

import io

from rich.console import Console

from quantizer.progress import Terminal
from tests.fakes.clock import ManualClock


def test_elsewhere_than_on_a_terminal_lines_tell_the_time_left() -> None:
    """Begin, some steps, end: not a line for each step, and what an earlier run did counts for no speed."""
    out, clock = io.StringIO(), ManualClock()
    progress = Terminal(Console(file=out, width=20), clock)
    with progress.stage("quantizing layers", total=10, done=2) as advance:
        for _ in range(8):
            clock.advance(3)
            advance()
    assert [
        "quantizer: quantizing layers: 2 of 10 were there already",
        "quantizer: quantizing layers: 4 of 10, 18 s left",
        "quantizer: quantizing layers: 6 of 10, 12 s left",
        "quantizer: quantizing layers: 8 of 10, 6 s left",
        "quantizer: quantizing layers: done in 24 s",
    ] == out.getvalue().splitlines()
    assert {"quantizing layers": 24.0} == progress.seconds


def test_on_a_terminal_there_are_bars() -> None:
    """And no lines beside them."""
    out, clock = io.StringIO(), ManualClock()
    progress = Terminal(Console(file=out, width=100, force_terminal=True), clock)
    with progress.stage("quantizing layers", total=2) as advance:
        advance()
    assert "2/2" in out.getvalue()
    assert "quantizer:" not in out.getvalue()
