from __future__ import annotations

import os
from pathlib import Path

from bench.steady_cores import kept_awake


def test_what_keeps_cores_awake_gives_way_and_ends() -> None:
    """There is one process of the lowest class for each core, and none when the measurement is over."""
    with kept_awake() as pids:
        classes = {os.sched_getscheduler(pid) for pid in pids}
        assert (len(os.sched_getaffinity(0)), {os.SCHED_IDLE}) == (len(pids), classes)
    assert [] == [pid for pid in pids if Path(f"/proc/{pid}").exists()]
