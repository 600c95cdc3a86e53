"""Many callbacks that are due some time, most of which are never called: deadlines, looks at readers.

A timer of the event loop takes most of a kilobyte, and a stream needs one or two for as long as it lasts. Here what is
due in the same second shares one, and gets one of its own in that second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_STEP_S: Final = 1.0
# A caller chooses when its call is due, and a step that was made stays until its time has come. So that nobody can make
# any number of them, what is due later is looked at again on the way.
_MOST_STEPS: Final = 600


class Alarm:
    """One callback that is due. ``cancel`` it, or it will be called."""

    __slots__ = ("_callback", "_place", "at")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        """Use ``Alarms.call_at``."""
        self.at = at
        self._callback: Callable[[], None] | None = callback
        self._place: set[Alarm] | asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Do not call. A no-op afterwards."""
        place, self._place, self._callback = self._place, None, None
        if isinstance(place, set):
            place.discard(self)
        elif place is not None:
            place.cancel()

    def wait_in(self, waiting: set[Alarm]) -> None:
        """It is not due for a while."""
        waiting.add(self)
        self._place = waiting

    def wait_alone(self, loop: asyncio.AbstractEventLoop) -> None:
        """It is due soon."""
        self._place = loop.call_at(self.at, self._ring)

    def _ring(self) -> None:
        callback, self._place, self._callback = self._callback, None, None
        if callback is not None:
            callback()


class Alarms:
    """Those of one event loop. Make it inside the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, set[Alarm]] = {}  # by the step in which they are due

    def call_at(self, at: float, callback: Callable[[], None]) -> Alarm:
        """As the event loop's, by its clock."""
        alarm = Alarm(at, callback)
        self._have_wait(alarm, int(self._loop.time() / _STEP_S))
        return alarm

    def _have_wait(self, alarm: Alarm, now_step: int) -> None:
        step = min(int(alarm.at / _STEP_S), now_step + _MOST_STEPS)
        if step <= now_step:
            alarm.wait_alone(self._loop)
            return
        waiting = self._waiting.get(step)
        if waiting is None:
            waiting = self._waiting[step] = set()
            self._loop.call_at(step * _STEP_S, self._begin, step)
        alarm.wait_in(waiting)

    def _begin(self, step: int) -> None:
        now_step = max(step, int(self._loop.time() / _STEP_S))  # timers may come early
        for alarm in self._waiting.pop(step):
            self._have_wait(alarm, now_step)
