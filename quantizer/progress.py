"""Progress of the stages of a run: bars with the time left on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


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

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._console = Console(stderr=True)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, *, total: int = 1, done: int = 0) -> Iterator[Callable[[], None]]:
        """A bar, and for other readers than a terminal one line at the end."""
        started = self._clock()
        columns = (
            TextColumn("{task.description:32}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console, disable=not self._console.is_terminal) as bars:
            task = bars.add_task(name, total=total, completed=done)
            yield lambda: bars.advance(task)
            bars.update(task, completed=total)
        self.seconds[name] = round(self._clock() - started, 1)
        if not self._console.is_terminal:
            resumed = f" ({done} of {total} were there already)" if done else ""
            self._console.print(f"{name}: {self.seconds[name]:.0f} s{resumed}", highlight=False)
