from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from worker.constraint_process import TaskAnswer, TaskLimits
from worker.constraints import ConstraintChecker
from worker.engine import Constraint, ConstraintKind

_SUM = Constraint(kind=ConstraintKind.REGEX, text=r"\d+\+\d+")


class _Process:
    """Checks nothing until it may; judges at once."""

    def __init__(self) -> None:
        self.checked: list[str] = []
        self.may_check = asyncio.Event()

    async def run(self, constraint: Constraint, limits: TaskLimits, *, output: str | None = None) -> TaskAnswer:
        del limits
        if output is None:
            self.checked.append(constraint.text)
            await self.may_check.wait()
        return TaskAnswer(problem=None, verdict=None if output is None else True, is_final=True)

    async def close(self) -> None:
        pass


@pytest.fixture
def process() -> _Process:
    """What the checker asks."""
    return _Process()


@pytest.fixture
def checker(process: _Process, monkeypatch: pytest.MonkeyPatch) -> ConstraintChecker:
    """One that asks ``process``."""
    checker = ConstraintChecker(Path(), 0)
    monkeypatch.setattr(checker, "_process", process)
    return checker


async def _ask(checker: ConstraintChecker, count: int) -> list[asyncio.Task[None]]:
    """So many callers come, each with a constraint of its own, and wait."""
    constraints = [Constraint(kind=ConstraintKind.REGEX, text=f"a{{{number}}}") for number in range(count)]
    callers = [asyncio.create_task(checker.check(constraint)) for constraint in constraints]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return callers


async def test_checks_whose_callers_have_gone_are_not_begun(checker: ConstraintChecker, process: _Process) -> None:
    """Those who ask for many, and do not wait for them, let nobody else wait; what is under way ends by itself."""
    callers = await _ask(checker, 50)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    last = asyncio.create_task(checker.check(_SUM))
    process.may_check.set()
    await last
    assert ["a{0}", "a{1}", _SUM.text] == process.checked


async def test_who_comes_when_the_first_caller_has_gone_has_an_answer(
    checker: ConstraintChecker, process: _Process
) -> None:
    """Of a check that had not been begun."""
    callers = await _ask(checker, 3)
    callers[2].cancel()
    again = asyncio.create_task(checker.check(Constraint(kind=ConstraintKind.REGEX, text="a{2}")))
    await asyncio.wait(callers[2:])
    process.may_check.set()
    await again
    assert ["a{0}", "a{1}", "a{2}"] == process.checked
    await asyncio.gather(*callers[:2])


async def test_a_verdict_does_not_wait_behind_checks(checker: ConstraintChecker, process: _Process) -> None:
    """Its generation holds blocks until then."""
    callers = await _ask(checker, 50)
    assert await checker.verdict(_SUM, "1+1")
    process.may_check.set()
    await asyncio.gather(*callers)
