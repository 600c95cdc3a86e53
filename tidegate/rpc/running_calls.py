"""The calls that run, so that a shutdown which cannot wait for them any longer ends them with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class RunningCalls:
    """Each call is one task of the event loop."""

    def __init__(self, ended: Callable[[], Exception]) -> None:
        """``ended`` makes what a call raises that ``end_all`` has ended."""
        self.ended = ended
        self.tasks: set[asyncio.Task[object]] = set()
        self.is_ending = False

    def hold(self) -> RunningCall:
        """Around a call: counts the calling task. Raises what ``ended`` makes when ``end_all`` ends it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("not inside a task")
        return RunningCall(self, task)

    def end_all(self) -> None:
        """End every call."""
        self.is_ending = True
        for task in self.tasks:
            task.cancel()


class RunningCall:
    """One of them. No generator: of these there is one for each stream."""

    __slots__ = ("_calls", "_task")

    def __init__(self, calls: RunningCalls, task: asyncio.Task[object]) -> None:
        self._calls = calls
        self._task = task

    def __enter__(self) -> None:
        self._calls.tasks.add(self._task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.tasks.discard(self._task)
        if isinstance(error, asyncio.CancelledError) and self._calls.is_ending and not self._task.uncancel():
            raise self._calls.ended() from None
