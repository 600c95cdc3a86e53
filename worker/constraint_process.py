"""The worker's side of the constraint nursery (worker/constraint_nursery.py): starts it, and again when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.engine import Constraint

_LOGGER = logging.getLogger(__name__)

_LENGTH_BYTES = 4
# A task ends by its own limits; a nursery that is this much later has a defect, and is killed.
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """What one task may take before it is killed. ``memory_bytes`` are beside what every task has from the start."""

    processor_s: float
    wall_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswer:
    """``problem`` is None where there is none. ``verdict`` is for judged output. ``is_final``: the same every time."""

    problem: str | None
    verdict: bool | None = None
    is_final: bool


_LOST = TaskAnswer(problem="could not be checked: the checking process ended", is_final=False)


class ConstraintProcess:
    """Runs tasks in a nursery, several at once."""

    def __init__(self, tokenizer_dir: Path, vocabulary_size: int) -> None:
        """``vocabulary_size`` is the model's."""
        self._arguments = ("-m", "worker.constraint_nursery", str(tokenizer_dir.resolve()), str(vocabulary_size))
        self._nursery: asyncio.Task[_Nursery] | None = None

    def start(self) -> None:
        """Begin to start the process, unless it runs; it is ready seconds later, and tasks wait for that."""
        if self._nursery is None or (self._nursery.done() and not _is_usable(self._nursery)):
            self._nursery = asyncio.create_task(_Nursery.start(self._arguments), name="constraint nursery: start")

    async def run(self, constraint: Constraint, limits: TaskLimits, *, output: str | None = None) -> TaskAnswer:
        """Check ``constraint``, or judge ``output`` by it."""
        self.start()
        try:
            nursery = await asyncio.shield(self._nursery)  # type: ignore[arg-type] # start() has set it
        except (OSError, asyncio.IncompleteReadError):
            _LOGGER.exception("the process that checks constraints did not start")
            return _LOST
        return await nursery.run(constraint, limits, output)

    async def close(self) -> None:
        """End the process."""
        starting, self._nursery = self._nursery, None
        if starting is None:
            return
        if not starting.done():
            starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            await (await starting).close()


def _is_usable(nursery: asyncio.Task[_Nursery]) -> bool:
    return not nursery.cancelled() and nursery.exception() is None and nursery.result().is_alive


class _Nursery:
    """One life of the process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[TaskAnswer]] = {}
        self._task_ids = itertools.count(1)
        self._reading = asyncio.create_task(self._read(), name="constraint nursery: answers")

    @classmethod
    async def start(cls, arguments: tuple[str, ...]) -> _Nursery:
        """Start it and wait until it is ready. Raises ``OSError`` or ``IncompleteReadError``."""
        root = Path(__file__).parent.parent  # for -m to find this package
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=PIPE, stdout=PIPE, cwd=root)
        try:
            await _read_frame(process)
        except BaseException:
            await _end(process)
            raise
        return cls(process)

    @property
    def is_alive(self) -> bool:
        return not self._reading.done()

    async def run(self, constraint: Constraint, limits: TaskLimits, output: str | None) -> TaskAnswer:
        task_id = next(self._task_ids)
        message = {
            "id": task_id,
            "kind": constraint.kind.value,
            "text": constraint.text,
            "choices": constraint.choices,
            "output": output,
            "processor_s": limits.processor_s,
            "wall_s": limits.wall_s,
            "memory_bytes": limits.memory_bytes,
        }
        self._waiting[task_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(limits.wall_s + _GRACE_S):
                await self._send(message)
                return await self._waiting[task_id]
        except TimeoutError:
            _LOGGER.error("the process that checks constraints hangs and is killed")  # noqa: TRY400 - no more to tell
            self._process.kill()
            return _LOST
        except ConnectionError:
            return _LOST
        finally:
            del self._waiting[task_id]

    async def close(self) -> None:
        self._reading.cancel()
        await _end(self._process)

    async def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        writer = self._process.stdin
        assert writer is not None  # noqa: S101 - it was asked for
        writer.write(len(data).to_bytes(_LENGTH_BYTES) + data)
        await writer.drain()

    async def _read(self) -> None:
        try:
            while True:
                answer = await _read_frame(self._process)
                waiting = self._waiting.get(answer.pop("id"))
                if waiting is not None and not waiting.done():  # else its caller has gone
                    waiting.set_result(TaskAnswer(**answer))
        except asyncio.IncompleteReadError:
            _LOGGER.warning("the process that checks constraints has ended; the next check starts another")
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_result(_LOST)


async def _read_frame(process: Process) -> dict[str, Any]:
    reader = process.stdout
    assert reader is not None  # noqa: S101 - it was asked for
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
    frame: dict[str, Any] = json.loads(await reader.readexactly(length))
    return frame


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
