from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from bench.tracing_service import AGAIN, ALL, DEAD, UNSAMPLED, UNTRACED, WAYS, Switch, signal_of
from tests.fakes.spans import KeptSpans
from tidegate.telemetry.spans import SERVER, Form, NoTracer, Span, Tracer

_CALL = Form("call", SERVER)


@pytest.fixture
def _signals() -> Iterator[None]:
    """What the switch hears of is given back."""
    before = {way: signal.getsignal(signal_of(way)) for way in WAYS}
    yield
    for way, handler in before.items():
        signal.signal(signal_of(way), handler)


@pytest.mark.usefixtures("_signals")
def test_a_signal_says_how_the_next_call_is_traced() -> None:
    """And what has become of spans so far is told with each of them."""
    every, none, untraced = KeptSpans().tracer, KeptSpans(share=0.0).tracer, NoTracer()
    tracers: dict[str, Tracer] = {UNTRACED: untraced, AGAIN: untraced, UNSAMPLED: none, ALL: every, DEAD: every}
    told: list[str] = []
    switch = Switch(tracers, told.append)
    ways = [ALL, UNSAMPLED, DEAD, UNTRACED]
    found = []
    for way in ways:
        signal.raise_signal(signal_of(way))
        found.append(isinstance(switch.begin(_CALL, ()), Span))
    assert [True, False, True, False] == found
    assert ways == told
