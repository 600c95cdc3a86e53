"""A deadline over many short waits, for the price of one timer. ``asyncio.timeout`` would set one for every token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

from worker.errors import DeadlineExceededError

_T = TypeVar("_T")


class Deadline:
    """Enter it, then ``wait`` for one thing after the other. Between waits a passed deadline interrupts nothing."""

    def __init__(self, at: float | None) -> None:
        """``at`` is by the event loop's clock; None never comes."""
        self._at = at
        self._timer: asyncio.TimerHandle | None = None
        self._has_passed = False
        self._waiter: asyncio.Task[object] | None = None

    def __enter__(self) -> Self:
        if self._at is not None:
            self._timer = asyncio.get_running_loop().call_at(self._at, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def wait(self, result: Awaitable[_T]) -> _T:
        """Await ``result``. Raises ``DeadlineExceededError`` when the deadline comes first, or has come before."""
        if not self._has_passed:
            # In no local: a cancelled task keeps its error, which keeps this frame.
            self._waiter = asyncio.current_task()
            try:
                return await result
            except asyncio.CancelledError:
                # As in asyncio.timeout: where somebody else has cancelled the task, too, that is what counts.
                if not self._has_passed or self._waiter is None or self._waiter.uncancel() > 0:
                    raise
            finally:
                self._waiter = None
        elif asyncio.iscoroutine(result):
            result.close()
        raise DeadlineExceededError("the deadline passed before the generation was complete")

    def _pass(self) -> None:
        self._has_passed = True
        if self._waiter is not None:
            self._waiter.cancel()
