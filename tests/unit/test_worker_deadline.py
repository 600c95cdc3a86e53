from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from tests.fakes.clock import leap
from worker.deadline import Deadline
from worker.errors import DeadlineExceededError


async def test_what_comes_in_time_comes_through() -> None:
    """With a deadline to come, and with none."""
    for at in (None, asyncio.get_running_loop().time() + 60):
        with Deadline(at) as deadline:
            assert "done" == await deadline.wait(asyncio.sleep(0, "done"))


async def test_a_wait_ends_at_the_deadline() -> None:
    """The task itself goes on, and is not left cancelled."""
    with Deadline(asyncio.get_running_loop().time()) as deadline:
        with pytest.raises(DeadlineExceededError):
            await deadline.wait(asyncio.Event().wait())
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()


async def test_a_deadline_that_passes_between_waits_ends_the_next_one() -> None:
    """Whatever the caller does in between is not interrupted."""
    loop = asyncio.get_running_loop()
    with Deadline(loop.time() + 60) as deadline:
        passed = loop.create_future()
        loop.call_later(61, passed.set_result, None)
        leap(62)
        await passed
        with pytest.raises(DeadlineExceededError):
            await deadline.wait(asyncio.sleep(0))


async def test_another_cancellation_is_no_deadline() -> None:
    """Whoever cancels the call hears of its cancellation."""
    begun = asyncio.Event()

    async def wait() -> None:
        with Deadline(asyncio.get_running_loop().time() + 60) as deadline:
            begun.set()
            await deadline.wait(asyncio.Event().wait())

    task = asyncio.create_task(wait())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("at", [None, 1e9])
async def test_a_cancelled_task_leaves_nothing_to_the_garbage_collector(at: float | None) -> None:
    """Clients cancel by the thousand, and all that a generation has made hangs by its task's last error."""
    begun = asyncio.Event()

    async def wait() -> None:
        with Deadline(at) as deadline:
            begun.set()
            await deadline.wait(asyncio.Event().wait())

    gc.disable()
    try:
        task = asyncio.create_task(wait())
        await begun.wait()
        task.cancel()
        await asyncio.wait((task,))
        gone = weakref.ref(task)
        del task
        assert gone() is None
    finally:
        gc.enable()


async def test_nothing_is_cancelled_after_the_last_wait() -> None:
    """The timer ends with the block."""
    loop = asyncio.get_running_loop()
    with Deadline(loop.time() + 60) as deadline:
        await deadline.wait(asyncio.sleep(0))
    later = loop.create_future()
    loop.call_later(61, later.set_result, "undisturbed")
    leap(62)
    assert "undisturbed" == await later
