"""Progress of the stages of a run: bars with the time left on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

_LINE_EVERY_S = 5.0


class Progress(Protocol):
    """Something that is told of stages; ``seconds`` says how long each one took."""

    seconds: dict[str, float]

    def stage(self, name: str, *, total: int = 1, done: int = 0) -> AbstractContextManager[Callable[[], None]]:
        """A stage of ``total`` steps, ``done`` of which an earlier run has made; call the result after each step."""


class Silent:
    """Tells nobody."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def stage(self, name: str, *, total: int = 1, done: int = 0) -> AbstractContextManager[Callable[[], None]]:  # noqa: ARG002
        """Nothing happens."""
        return nullcontext(lambda: None)


class Terminal:
    """Writes to standard error."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._console = console or Console(stderr=True)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, *, total: int = 1, done: int = 0) -> Iterator[Callable[[], None]]:
        """Bars on a terminal, lines for other readers."""
        started = self._clock()
        shown = self._bars(name, total, done) if self._console.is_terminal else self._lines(name, total, done)
        with shown as advance:
            yield advance
        self.seconds[name] = round(self._clock() - started, 1)

    @contextmanager
    def _bars(self, name: str, total: int, done: int) -> Iterator[Callable[[], None]]:
        columns = (
            TextColumn("{task.description:32}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=total, completed=done)
            yield lambda: bars.advance(task)
            bars.update(task, completed=total)

    @contextmanager
    def _lines(self, name: str, total: int, done: int) -> Iterator[Callable[[], None]]:
        """One when the stage begins, one every few seconds with the time left, one at its end."""
        started = said_at = self._clock()
        completed = done

        def advance() -> None:
            nonlocal completed, said_at
            completed += 1
            now = self._clock()
            if completed < total and now - said_at >= _LINE_EVERY_S:
                said_at = now
                left_s = (now - started) / (completed - done) * (total - completed)
                self._say(f"{name}: {completed} of {total}, {left_s:.0f} s left")

        self._say(f"{name}{f': {done} of {total} were there already' if done else ''}")
        yield advance
        self._say(f"{name}: done in {self._clock() - started:.0f} s")

    def _say(self, line: str) -> None:
        """``tidegate demo`` shows the latest of these lines while it waits."""
        self._console.print(f"quantizer: {line}", highlight=False, markup=False, soft_wrap=True)
