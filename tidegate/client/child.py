"""A service started by this command as a child process, with its output in a log file."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tidegate.client import tether

_CONTROLS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_TAIL_BYTES = 65_536
_TAIL_LINES = 12
# What our own programs say of themselves, without time and logger; libraries' lines are for the log alone.
_PROGRESS = re.compile(
    r" (?:INFO|WARNING|ERROR) (?:gateway|worker)[\w.]*: (.+)|^default model: +\d+ s  (.+)|^quantizer: (.+)"
)
# Of an engine that ends with stack traces of three processes, this is what a person wants to read first.
_CAUSE = re.compile(r"\b\w+(?:Error|Exception): .+")


class ChildFailedError(Exception):
    """A child ended by itself, or did not become ready. ``tail`` is the end of its log."""

    def __init__(self, message: str, *, log_path: Path, tail: Sequence[str]) -> None:
        """``message`` is for people."""
        super().__init__(message)
        self.log_path = log_path
        self.tail = tail


class Child:
    """A running command. It ends with this process, however this process ends (tether.py)."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log_path: Path) -> None:
        """Use ``start``."""
        self.name = name
        self.log_path = log_path
        self._process = process

    @classmethod
    async def start(cls, name: str, command: Sequence[str], *, log_path: Path, grace_s: float) -> Child:
        """Run ``command``. ``grace_s`` is what it gets between SIGTERM and SIGKILL when it has to stop."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", tether.__file__, str(grace_s), *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is for this process, which then stops its children
            )
        return cls(name, process, log_path)

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._process.returncode is not None

    async def wait(self) -> int:
        """Wait for its end; its return code."""
        return await self._process.wait()

    async def stop(self, *, hurry: bool = False) -> None:
        """End it: SIGTERM, its grace (two seconds in a hurry), SIGKILL. Returns when nothing of it is left."""
        if self._process.stdin is not None:
            if hurry:
                self._process.stdin.write(b"!")
            self._process.stdin.close()
        await self._process.wait()

    def progress(self) -> str:
        """What it last said of its progress; empty before that."""
        found = [match for line in self._log_lines() if (match := _PROGRESS.search(line))]
        return found[-1][found[-1].lastindex or 0] if found else ""

    def failure(self, what: str) -> ChildFailedError:
        """An error that says ``what`` went wrong, with the exceptions that the log names and the log's end."""
        lines = self._log_lines()
        tail = lines[-_TAIL_LINES:]
        causes = dict.fromkeys(found[0] for line in lines[:-_TAIL_LINES] if (found := _CAUSE.search(line)))
        return ChildFailedError(f"{self.name} {what}", log_path=self.log_path, tail=[*causes, *tail])

    def _log_lines(self) -> list[str]:
        """The last lines of its output, without control characters."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return [_CONTROLS.sub("", line).rstrip() for line in text.splitlines() if line.strip()]
