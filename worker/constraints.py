"""Decides whether a constraint may reach the engine, and whether the finished text has the form that it asked for.

Three stages: bounds that are read off the constraint (worker/constraint_limits.py), then compilation and a trial in a
process that can be killed (worker/constraint_nursery.py), and at the end the verdict on the text. Nothing of it but the
bounds runs on the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from worker.constraint_limits import find_problem
from worker.constraint_process import ConstraintProcess, TaskLimits
from worker.engine import Constraint, ConstraintKind

_MEMORY_BYTES = 1 << 30
# A caller waits for its check. An ordinary constraint takes 10 to 50 ms of processor time; a JSON string of at most 64
# characters 0.6 s, and of 256 characters 2 s, which is too much. Time as such says little on a busy machine.
_CHECK_PROCESSOR_S, _CHECK_WALL_S = 1.0, 5.0
# The generation has been paid for, so its verdict may take longer.
_VERDICT_LIMITS = TaskLimits(processor_s=2.0, wall_s=10.0, memory_bytes=_MEMORY_BYTES)
# The engine needs the other processors. A generation that waits for its verdict holds blocks of the KV cache: it waits
# behind no checks, before which nothing is held.
_MAX_CHECKS_AT_ONCE, _MAX_VERDICTS_AT_ONCE = 2, 1
_CACHE_ENTRIES = 4_096

_FIELDS = {kind: f"constraint.{kind.value}" for kind in ConstraintKind}


class ConstraintRejectedError(Exception):
    """The constraint cannot be compiled within its limits, or its output cannot be judged within them."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field} {description}")
        self.field = field
        self.description = description


@dataclass(slots=True, eq=False)
class _Check:
    """One that waits for its turn, or is under way: then it ends by itself, for its answer is of use to the next."""

    task: asyncio.Task[str | None] = field(init=False)
    callers: int = 0
    has_begun: bool = False


class ConstraintChecker:
    """Checks constraints for one model. Verdicts on constraints are remembered by digest."""

    def __init__(
        self, tokenizer_dir: Path, vocabulary_size: int, *, check_processor_s: float = _CHECK_PROCESSOR_S
    ) -> None:
        """``vocabulary_size`` is the model's; ``check_processor_s`` the processor time that a check may take."""
        self._check_limits = TaskLimits(processor_s=check_processor_s, wall_s=_CHECK_WALL_S, memory_bytes=_MEMORY_BYTES)
        self._process = ConstraintProcess(tokenizer_dir, vocabulary_size)
        self._check_slots = asyncio.Semaphore(_MAX_CHECKS_AT_ONCE)
        self._verdict_slots = asyncio.Semaphore(_MAX_VERDICTS_AT_ONCE)
        self._problems: OrderedDict[str, str | None] = OrderedDict()
        self._checks: dict[str, _Check] = {}

    def start(self) -> None:
        """Begin to load the compiler, which takes seconds; checks wait for it."""
        self._process.start()

    async def check(self, constraint: Constraint) -> None:
        """Raises ``ConstraintRejectedError`` unless the constraint compiles, and is cheap enough to be obeyed."""
        problem = find_problem(constraint)
        if problem is None:
            problem = await self._compile_problem(constraint)
        if problem is not None:
            raise ConstraintRejectedError(_FIELDS[constraint.kind], problem)

    async def verdict(self, constraint: Constraint, text: str) -> bool:
        """Whether the finished ``text`` has the form. Raises ``ConstraintRejectedError`` when that is too hard."""
        if constraint.kind is ConstraintKind.CHOICE:
            return text in constraint.choices
        async with self._verdict_slots:
            answer = await self._process.run(constraint, _VERDICT_LIMITS, output=text)
        if answer.verdict is None:
            raise ConstraintRejectedError(_FIELDS[constraint.kind], f"left the output unjudged: {answer.problem}")
        return answer.verdict

    async def close(self) -> None:
        """End the compiler's process."""
        for check in self._checks.values():
            check.task.cancel()
        await self._process.close()

    async def _compile_problem(self, constraint: Constraint) -> str | None:
        key = _digest(constraint)
        if key in self._problems:
            self._problems.move_to_end(key)
            return self._problems[key]
        check = self._checks.get(key)
        if check is None:
            check = self._checks[key] = _Check()
            check.task = asyncio.create_task(self._check_once(key, constraint, check), name="constraint check")
        check.callers += 1
        try:
            return await asyncio.shield(check.task)  # others may wait for it too
        finally:
            check.callers -= 1
            if not check.callers and not check.has_begun:
                # A caller that may go away is no way to keep the others' checks waiting.
                check.task.cancel()
                self._forget(key, check)

    async def _check_once(self, key: str, constraint: Constraint, check: _Check) -> str | None:
        try:
            async with self._check_slots:
                check.has_begun = True
                answer = await self._process.run(constraint, self._check_limits)
        finally:
            self._forget(key, check)
        if answer.is_final:
            self._problems[key] = answer.problem
            if len(self._problems) > _CACHE_ENTRIES:
                self._problems.popitem(last=False)
        return answer.problem

    def _forget(self, key: str, check: _Check) -> None:
        if self._checks.get(key) is check:
            del self._checks[key]


def _digest(constraint: Constraint) -> str:
    parts = [constraint.kind.value, constraint.text, *constraint.choices]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
