"""Work in a thread that nobody has to wait for: a process that is to end does not load its model first."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

_NAME = "abandonable"


async def in_abandonable_thread(work: Callable[[], _T]) -> _T:
    """What ``work`` returns or raises. When this is cancelled the work goes on, and its result is dropped.

    (``asyncio.to_thread`` uses a pool, whose threads the event loop waits for at its end.)
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()

    def settle(value: _T | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type] # None only where _T is

    def run() -> None:
        value: _T | None = None
        error: BaseException | None = None
        try:
            value = work()
        except BaseException as caught:  # noqa: BLE001 - it belongs to who waits
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name=_NAME, daemon=True).start()
    return await result


def is_work_left() -> bool:
    """Whether a thread still runs that was abandoned. The interpreter would not end well with it."""
    return any(thread.name == _NAME for thread in threading.enumerate())
