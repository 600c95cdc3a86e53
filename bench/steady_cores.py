"""Cores that stay what they are while something is measured, on a machine that is a guest.

A virtual core that falls idle is given away, and comes back beside another neighbour: the same work then takes 130 or
210 us, for as long as the core stays busy. So every core is kept busy, by a process of the lowest class, which gives
way to everything else at once; and the program that is measured has one of them to itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

_TICK_LOOPS = 100_000
# Ends with its parent.
_SPIN = f"""
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range({_TICK_LOOPS}):
        pass
"""


def on(core: int) -> Sequence[str]:
    """Before a command: it, and all that it starts, runs there."""
    return "taskset", "--cpu-list", str(core)


def leave(core: int) -> None:
    """This process, and what it starts from now on, runs on the other cores, where there are any."""
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {core} or {core})


@contextmanager
def kept_awake() -> Iterator[Sequence[int]]:
    """All cores that this process may use, until this ends; by processes with these ids."""
    with ExitStack() as stack:
        pids = []
        for core in sorted(os.sched_getaffinity(0)):
            spinning = subprocess.Popen([*on(core), sys.executable, "-c", _SPIN])
            stack.callback(spinning.wait)
            stack.callback(spinning.kill)
            os.sched_setscheduler(spinning.pid, os.SCHED_IDLE, os.sched_param(0))
            pids.append(spinning.pid)
        yield pids
