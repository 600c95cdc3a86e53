"""One call to a worker as something that can be given up: for another worker's sake, while this one says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from grpc import StatusCode

from gateway.workers.errors import WorkerCallError
from tidegate.rpc.status import RpcError

_LOST = RpcError(code=StatusCode.UNAVAILABLE, reason="", domain="", message="the worker makes no sign of life")


class HeldCall:
    """Give it up at any time: a message that came from the worker is sent to the client whole, or not at all.

    It cancels the task that makes the call, and takes that back where the call ends, as ``asyncio.timeout`` does; but
    it makes nothing for that as long as nobody gives the call up.
    """

    __slots__ = ("_cancel", "_cancelled_before", "_has_cancelled", "_is_given_up", "_is_sending", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._cancelled_before = 0  # by others
        self._cancel: asyncio.Handle | None = None
        self._has_cancelled = False
        self._is_given_up = False
        self._is_sending = False

    @property
    def is_given_up(self) -> bool:
        """Whether it was: whatever the worker does, nobody has seen it die."""
        return self._is_given_up

    def begin(self) -> None:
        """Before the call, which is made in this task. Raises ``WorkerCallError`` where it is given up already."""
        self._check()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("not inside a task")
        self._task = task
        self._cancelled_before = task.cancelling()

    def end(self, error: BaseException | None) -> None:
        """After the call, which ended so. Raises ``WorkerCallError`` when that was because it was given up."""
        task, self._task = self._task, None
        if self._cancel is not None:
            self._cancel.cancel()
        if task is not None and self._has_cancelled:
            is_cancelled_by_others = task.uncancel() > self._cancelled_before
            if isinstance(error, asyncio.CancelledError) and not is_cancelled_by_others:
                raise WorkerCallError(_LOST) from None

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around the sending of a message, where that may have to wait. Raises ``WorkerCallError`` as ``end`` does."""
        self._check()
        self._is_sending = True
        try:
            yield
        finally:
            self._is_sending = False
        self._check()

    def give_up(self) -> None:
        """End the call: at once, or behind the message that is being sent."""
        self._is_given_up = True
        if self._task is not None and not self._is_sending and self._cancel is None:
            # Behind what is due already: the call may have come to its end.
            self._cancel = asyncio.get_running_loop().call_soon(self._cancel_task)

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._has_cancelled = True
            self._task.cancel()

    def _check(self) -> None:
        if self._is_given_up:
            raise WorkerCallError(_LOST)
