"""Progress of what takes a while: live on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Protocol

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TextColumn
from rich.spinner import Spinner
from rich.text import Text

_PLAIN_EVERY_S = 10.0

Note = Callable[[str], None]
"""Says what a step is doing; called often while waiting."""


class Steps(Protocol):
    """Shows steps, one after the other."""

    def step(self, title: str) -> AbstractContextManager[Note]:
        """Show ``title`` and its elapsed time while the block runs, and then how it ended."""


class PlainSteps:
    """A line when a step begins, every ten seconds while it lasts, and when it ends."""

    def __init__(self, out: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock

    @contextmanager
    def step(self, title: str) -> Iterator[Note]:
        """Print the lines."""
        began = said = self._clock()

        def note(detail: str) -> None:
            nonlocal said
            now = self._clock()
            if now - said >= _PLAIN_EVERY_S:
                said = now
                self._print(f"  {title}: {now - began:.0f} s  {detail}".rstrip())

        self._print(f"{title} ...")
        try:
            yield note
        except BaseException:
            self._print(f"{title}: failed after {self._clock() - began:.1f} s")
            raise
        self._print(f"{title}: done in {self._clock() - began:.1f} s")

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class LiveSteps:
    """A spinner with the elapsed time and the latest detail; a mark when the step has ended."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, title: str) -> Iterator[Note]:
        """Keep one line up to date, and leave it standing."""
        columns = (_Mark(), TextColumn("{task.description:<30}"), _Elapsed(), _Detail())
        with Progress(*columns, console=self._console, refresh_per_second=8) as progress:
            task = progress.add_task(title, total=None, detail="", mark="")
            try:
                yield lambda detail: progress.update(task, detail=detail)
            except BaseException:
                progress.update(task, mark="[red]✘[/]", detail="")
                raise
            progress.update(task, mark="[green]✔[/]", detail="")


class _Mark(ProgressColumn):
    def __init__(self) -> None:
        super().__init__()
        self._spinner = Spinner("dots", style="cyan")

    def render(self, task: Task) -> Text:
        if mark := task.fields["mark"]:
            return Text.from_markup(mark)
        spinning = self._spinner.render(task.get_time())
        return spinning if isinstance(spinning, Text) else Text()


class _Elapsed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.elapsed or 0:6.1f} s", style="bold")


class _Detail(ProgressColumn):
    """The end of a log line: foreign text, so neither markup nor wider than what is left of the terminal."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["detail"], style="dim", no_wrap=True, overflow="ellipsis")


def make_steps(console: Console) -> Steps:
    """Live steps when ``console`` is a terminal, plain ones otherwise."""
    return LiveSteps(console) if console.is_terminal else PlainSteps(console.file)
