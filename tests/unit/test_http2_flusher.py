"""The flusher holds its loop where reads are many, once a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.http2.pace import TURN_S
from tidegate.http2.transport import Flusher

_DENSE = 64


class _NotedLoop(asyncio.SelectorEventLoop):
    """Keeps what it is to call soon until ``turn``."""

    def __init__(self) -> None:
        super().__init__()
        self.soon: list[Callable[..., object]] = []

    def call_soon(self, callback: Callable[..., object], *args: object, context: object = None) -> asyncio.Handle:
        del args, context
        self.soon.append(callback)
        return asyncio.Handle(lambda: None, (), self)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


def test_loop_is_held_once_a_turn() -> None:
    """Of the reads of one turn the first asks for it; what the turn has taken counts."""
    loop, slept, now = _NotedLoop(), list[float](), [100.0]
    flusher = Flusher(loop, clock=lambda: now[0], sleep=slept.append)
    for _ in range(_DENSE):
        flusher.note_read()
    loop.turn()
    now[0] += TURN_S
    for _ in range(5):
        flusher.note_read()
    assert len(loop.soon) == 1
    now[0] += TURN_S / 5
    loop.turn()
    loop.close()
    assert [round(pause_s / TURN_S, 3) for pause_s in slept] == [1.0, 0.8]


def test_few_reads_are_answered_at_once() -> None:
    """A stream that is alone is never held up: nothing is put on the loop for it."""
    loop, slept, now = _NotedLoop(), list[float](), [100.0]
    flusher = Flusher(loop, clock=lambda: now[0], sleep=slept.append)
    for _ in range(10 * _DENSE):
        now[0] += 0.0001
        flusher.note_read()
    assert loop.soon == []
    loop.close()
    assert slept == []
