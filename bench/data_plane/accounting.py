"""What processes cost: CPU time and memory, as the kernel counts them."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessTree:
    """A process and all that it has started."""

    pid: int

    def cpu_s(self) -> float:
        """CPU seconds of all threads so far, in user and kernel mode."""
        return sum(_cpu_s(pid) for pid in self.pids())

    def pss_bytes(self) -> int:
        """Memory, with pages that others map too counted in shares."""
        return sum(_pss_bytes(pid) for pid in self.pids())

    def pids(self) -> list[int]:
        """All processes of the tree that are alive."""
        found = [self.pid]
        for pid in found:
            with suppress(OSError):
                for thread in (_PROC / str(pid) / "task").iterdir():
                    found += map(int, (thread / "children").read_text().split())
        return found


def _cpu_s(pid: int) -> float:
    """The larger of two counts: nanoseconds of the threads alive, and ticks that include the threads that ended."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        in_ticks = (int(fields[11]) + int(fields[12])) * _TICK_S
    except OSError:
        return 0.0
    exact = 0.0
    with suppress(OSError):
        for thread in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError):
                exact += int((thread / "schedstat").read_text().split()[0]) / 1e9
    return max(in_ticks, exact)


def _pss_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTime:
    """CPU seconds of the whole machine so far."""

    total_s: float
    busy_s: float

    @classmethod
    def read(cls) -> MachineTime:
        """Now."""
        ticks = [int(field) for field in (_PROC / "stat").read_text().splitlines()[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        return cls(total_s=sum(ticks) * _TICK_S, busy_s=(sum(ticks) - idle) * _TICK_S)
