from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from worker.abandonable import in_abandonable_thread, is_work_left
from worker.restart_policy import RestartLimits, RestartPolicy
from worker.supervisor import GAVE_UP, Supervisor, supervised_command

_LIMITS = RestartLimits(max_deaths=4, stable_s=10.0, max_wait_s=1.5)


def test_waits_double_until_it_is_given_up() -> None:
    """Deaths in a row, none of them after a stable time."""
    policy = RestartPolicy(_LIMITS)
    assert [0.5, 1.0, 1.5, None] == [policy.wait_s(lived_s=1.0) for _ in range(4)]


def test_a_stable_time_makes_it_start_afresh() -> None:
    """A worker that dies once an hour is started again every time."""
    policy = RestartPolicy(_LIMITS)
    assert [0.5, 1.0, 0.5, 0.5] == [policy.wait_s(lived_s=lived_s) for lived_s in (1.0, 1.0, 10.0, 3600.0)]


def test_the_supervisors_flag_is_not_passed_on() -> None:
    """Or there would be no end of supervisors."""
    assert ["-m", "worker", "--engine", "sim"] == supervised_command(["--engine", "--supervise", "sim"])[1:]


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (2, 2), (1, GAVE_UP)])
def test_only_a_death_is_a_reason_to_start_again(code: int, expected: int) -> None:
    """A shutdown and bad settings are passed on; a command that keeps dying is given up."""
    policy = RestartPolicy(RestartLimits(max_deaths=2, max_wait_s=0.01))
    assert expected == Supervisor([sys.executable, "-c", f"raise SystemExit({code})"], policy).run()


async def test_abandoned_work_holds_nobody_up() -> None:
    """Who is cancelled gets away, and the process can tell that work is left."""
    begun, is_over = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        is_over.wait()

    waiting = asyncio.create_task(in_abandonable_thread(work))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert is_work_left()
    is_over.set()


async def test_work_in_a_thread_returns_and_raises() -> None:
    """As a call would."""
    assert 3 == await in_abandonable_thread(lambda: 3)
    with pytest.raises(ZeroDivisionError):
        await in_abandonable_thread(lambda: 1 // 0)
