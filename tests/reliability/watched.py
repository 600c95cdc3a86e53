"""``python -m tests.reliability.watched MODULE ...``: a service that tells, on SIGUSR1, how many tasks its loop has.

It collects its garbage before, which nobody holds: how much of it there is depends on when it was collected last.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType

DIRECTORY_VARIABLE = "TIDEGATE_TEST_TASKS"


def main() -> int:
    """Returns the service's exit code."""
    module, *arguments = sys.argv[1:]
    signal.signal(signal.SIGUSR1, _tell)
    return int(importlib.import_module(f"{module}.__main__").main(arguments))


def _tell(number: int, frame: FrameType | None) -> None:
    del number, frame
    gc.collect()
    told = Path(os.environ[DIRECTORY_VARIABLE], str(os.getpid()))
    # Appears whole, or not at all.
    unfinished = told.with_suffix(".new")
    unfinished.write_text(str(len(asyncio.all_tasks())), encoding="ascii")
    unfinished.rename(told)


if __name__ == "__main__":
    sys.exit(main())
