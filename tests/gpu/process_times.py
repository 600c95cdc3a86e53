"""CPU time of processes and of those that they have started, by /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _SYSTEM = 1, 11, 12  # fields of /proc/PID/stat, counted behind the command's name


class ProcessTimes:
    """Processes by the names under which they are told; their children are told by their own."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._names = {pid: name for name, pid in pids.items()}

    def seconds(self) -> dict[str, float]:
        """CPU time of each since its start."""
        parents: dict[int, int] = {}
        commands: dict[int, str] = {}
        times_s: dict[int, float] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                head, _, tail = path.read_text().rpartition(")")
            except OSError:  # it has ended
                continue
            number, _, command = head.partition(" (")
            pid, fields = int(number), tail.split()
            parents[pid], commands[pid] = int(fields[_PARENT]), command
            times_s[pid] = (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_PER_S
        told: dict[str, float] = {}
        for pid, time_s in times_s.items():
            name = self._names.get(pid) or (commands[pid] if parents[pid] in self._names else None)
            if name is not None:
                told[name] = told.get(name, 0.0) + time_s
        return told

    def since(self, before: Mapping[str, float]) -> dict[str, float]:
        """CPU time of each since ``before``."""
        return {name: round(time_s - before.get(name, 0.0), 2) for name, time_s in self.seconds().items()}
