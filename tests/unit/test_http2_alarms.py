from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tidegate.http2.alarms import Alarms


class _JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still, but for jumps."""

    now = 1_000.25

    def time(self) -> float:
        return self.now

    async def jump(self, to: float) -> None:
        self.now = to
        for _ in range(4):  # timers that set timers
            await asyncio.sleep(0)


def _run(scenario: Callable[[_JumpingLoop], Awaitable[None]]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _JumpingLoop)
        await scenario(loop)

    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        runner.run(run())


@pytest.mark.parametrize("in_s", [0.0, 0.5, 0.75, 2.0, 3_600.4, 1e6])
def test_alarm_rings_when_it_is_due(in_s: float) -> None:
    """At once, in this second or in a later one: not before its time, and then once."""

    async def scenario(loop: _JumpingLoop) -> None:
        rung: list[float] = []
        due = loop.now + in_s
        Alarms().call_at(due, lambda: rung.append(loop.now))
        if in_s:
            await loop.jump(due - 0.01)
            assert [] == rung
        await loop.jump(due)
        await loop.jump(due + 10)
        assert [due] == rung

    _run(scenario)


@pytest.mark.parametrize("in_s", [0.5, 5.5])
@pytest.mark.parametrize("after_s", [0.0, 0.45, 5.2])
def test_cancelled_alarm_does_not_ring(in_s: float, after_s: float) -> None:
    """Wherever it waits when it is cancelled: with others, or alone."""

    async def scenario(loop: _JumpingLoop) -> None:
        rung: list[str] = []
        alarms, start = Alarms(), loop.now
        alarm = alarms.call_at(start + in_s, lambda: rung.append("cancelled"))
        alarms.call_at(start + in_s, lambda: rung.append("other"))
        await loop.jump(start + min(after_s, in_s - 0.05))
        alarm.cancel()
        alarm.cancel()
        await loop.jump(start + 10)
        assert ["other"] == rung

    _run(scenario)


def test_alarms_at_any_number_of_times_make_few_timers() -> None:
    """A caller chooses its deadline; one that lies years ahead leaves nothing behind when the call has ended."""

    async def scenario(loop: _JumpingLoop) -> None:
        alarms, before = Alarms(), len(loop._scheduled)  # type: ignore[attr-defined]  # there is no other way to tell
        for number in range(5_000):
            alarms.call_at(loop.now + 1_000 * number, _nothing).cancel()
        assert len(loop._scheduled) - before < 1_000  # type: ignore[attr-defined]

    _run(scenario)


def test_alarm_far_ahead_rings_when_its_time_has_come_step_by_step() -> None:
    """It is looked at on the way, and not rung."""

    async def scenario(loop: _JumpingLoop) -> None:
        rung: list[float] = []
        due = loop.now + 3_000.4
        Alarms().call_at(due, lambda: rung.append(loop.now))
        while loop.now + 250 < due:
            await loop.jump(loop.now + 250)
            assert [] == rung
        await loop.jump(due)
        assert [due] == rung

    _run(scenario)


def _nothing() -> None:
    pass
