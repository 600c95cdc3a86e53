"""Runs what a request costs in CPU off the event loop, and refuses requests when too much of that work is waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.errors import AdmissionQueueFullError, DeadlineExceededError
from gateway.policy.limit import Limit

_T = TypeVar("_T")

_MAX_IN_TURN = 16  # some milliseconds


class Preparation:
    """A few threads with a bounded backlog, counted in bytes: a message's size is known before any work is done."""

    def __init__(self, executor: ThreadPoolExecutor, backlog_bytes: Limit) -> None:
        self._executor = executor
        self._backlog_bytes = backlog_bytes
        self._in_turn = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def run(self, work: Callable[[], _T], *, size_bytes: int, deadline_at: float) -> _T:
        """Do ``work`` for a message of ``size_bytes``. ``deadline_at`` is by the event loop's clock.

        Raises ``AdmissionQueueFullError``, ``DeadlineExceededError`` and what ``work`` raises.
        """
        if (retry_after_s := self._backlog_bytes.try_take(size_bytes)) is not None:
            raise AdmissionQueueFullError(
                f"{self._backlog_bytes.in_use} bytes of requests wait to be prepared",
                metadata={"waiting_bytes": str(self._backlog_bytes.in_use)},
                retry_after_s=retry_after_s,
            )
        loop = asyncio.get_running_loop()
        future = self._executor.submit(work)
        # The bytes count until a thread is done with them, whether or not somebody still waits for the result.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._backlog_bytes.give_back, size_bytes))
        try:
            async with asyncio.timeout_at(deadline_at):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise DeadlineExceededError("the deadline passed before the request was prepared") from None

    def take_turn(self, loop: asyncio.AbstractEventLoop) -> bool:
        """For work that takes no longer than to hand it to a thread and back: whether the caller may do it at once.

        Where not, wait for ``turn``: a burst must not keep the event loop from all else.
        """
        if self._in_turn >= _MAX_IN_TURN or self._waiting:
            return False
        if not self._in_turn:
            loop.call_soon(self._next_turn)
        self._in_turn += 1
        return True

    def turn(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Done when a turn of the event loop has time for such work; ask ``take_turn`` before."""
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        return waiter

    def _next_turn(self) -> None:
        self._in_turn = 0
        while self._waiting and self._in_turn < _MAX_IN_TURN:
            waiter = self._waiting.popleft()
            if not waiter.done():  # its call may have ended meanwhile
                waiter.set_result(None)
                self._in_turn += 1
        if self._in_turn:
            asyncio.get_running_loop().call_soon(self._next_turn)
