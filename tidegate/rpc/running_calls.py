"""The calls that run, so that a shutdown which cannot wait for them any longer ends them with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class RunningCalls:
    """Each call is one task of the event loop."""

    def __init__(self, ended: Callable[[], Exception]) -> None:
        """``ended`` makes what a call raises that ``end_all`` has ended."""
        self._ended = ended
        self._tasks: set[asyncio.Task[object]] = set()
        self._is_ending = False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Count the calling task among the calls. Raises what ``ended`` makes when ``end_all`` ends it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("not inside a task")
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if self._is_ending and not task.uncancel():
                raise self._ended() from None
            raise
        finally:
            self._tasks.discard(task)

    def end_all(self) -> None:
        """End every call."""
        self._is_ending = True
        for task in self._tasks:
            task.cancel()
