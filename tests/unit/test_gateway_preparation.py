from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.errors import AdmissionQueueFullError, DeadlineExceededError
from gateway.policy.limit import Limit
from gateway.preparation import Preparation
from tests.fakes.clock import ManualClock, leap
from tests.fakes.patience import PATIENCE_S


class SlowWork:
    """Waits in its thread until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.go.wait()
        return "done"


@pytest.fixture
def work(executor: ThreadPoolExecutor) -> Iterator[SlowWork]:
    """Let go at the end, whatever the test does, and before the executor waits for it."""
    work = SlowWork()
    yield work
    work.go.set()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    """One thread."""
    executor = ThreadPoolExecutor(1)
    yield executor
    executor.shutdown()


@pytest.fixture
def backlog() -> Limit:
    """100 bytes."""
    return Limit(100, clock=ManualClock(), rng=random.Random(0))


def soon() -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + 60


async def until_given_back(backlog: Limit) -> None:
    """Wait for the thread's word to come through the event loop."""
    async with asyncio.timeout(PATIENCE_S):
        while backlog.in_use:  # noqa: ASYNC110 - it has no event for a test
            await asyncio.sleep(0)


async def test_requests_beyond_the_backlog_are_refused_before_any_work(
    executor: ThreadPoolExecutor, work: SlowWork, backlog: Limit
) -> None:
    """By their bytes, with a time to come back; what waited is done."""
    preparation = Preparation(executor, backlog)
    waiting = asyncio.create_task(preparation.run(work, size_bytes=90, deadline_at=soon()))
    await asyncio.sleep(0)
    with pytest.raises(AdmissionQueueFullError) as refused:
        await preparation.run(work, size_bytes=11, deadline_at=soon())
    assert {"waiting_bytes": "90"} == refused.value.metadata
    assert refused.value.retry_after_s is not None
    work.go.set()
    assert "done" == await waiting
    await until_given_back(backlog)
    assert 1 == work.calls


async def test_a_deadline_ends_the_wait_and_not_the_count(
    executor: ThreadPoolExecutor, work: SlowWork, backlog: Limit
) -> None:
    """The thread cannot be stopped, so that its bytes count until it is done."""
    preparation = Preparation(executor, backlog)
    waiting = asyncio.create_task(preparation.run(work, size_bytes=60, deadline_at=soon()))
    await asyncio.sleep(0)
    leap(60)
    with pytest.raises(DeadlineExceededError):
        await waiting
    assert 60 == backlog.in_use
    work.go.set()
    await until_given_back(backlog)


async def test_work_whose_caller_is_gone_is_not_done(
    executor: ThreadPoolExecutor, work: SlowWork, backlog: Limit
) -> None:
    """One that still waits for a thread gives its bytes back at once."""
    preparation = Preparation(executor, backlog)
    running = asyncio.create_task(preparation.run(work, size_bytes=10, deadline_at=soon()))
    waiting = asyncio.create_task(preparation.run(work, size_bytes=20, deadline_at=soon()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    await asyncio.sleep(0)
    assert 10 == backlog.in_use
    work.go.set()
    await running
    await until_given_back(backlog)
    assert 1 == work.calls


async def test_a_burst_of_light_work_leaves_the_loop_time_for_others(executor: ThreadPoolExecutor) -> None:
    """It is done in many turns, each in its order, and what was given up is left out."""
    preparation = Preparation(executor, Limit(1, clock=ManualClock(), rng=random.Random(0)))
    done: list[int] = []
    turns = 0

    async def one(number: int) -> None:
        loop = asyncio.get_running_loop()
        if not preparation.take_turn(loop):
            await preparation.turn(loop)
        done.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(200)]
    await asyncio.sleep(0)
    tasks[100].cancel()
    while not all(task.done() for task in tasks):
        turns += 1
        await asyncio.sleep(0)
    assert [number for number in range(200) if number != 100] == done
    assert turns >= 200 // 16
