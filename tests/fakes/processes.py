"""Looks for processes by a marker in their command line or environment (Linux)."""

from __future__ import annotations

import time
from pathlib import Path

from tests.fakes.patience import PATIENCE_S


def marked(marker: str) -> list[int]:
    """Ids of all running processes that carry ``marker``; zombies do not count."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            traces = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:  # gone in the meantime, or somebody else's
            continue
        if marker.encode() in traces:  # a zombie has neither
            found.append(int(process.name))
    return found


def wait_until_gone(marker: str) -> list[int]:
    """Wait until no process carries ``marker``; those that still do at the end."""
    end = time.monotonic() + PATIENCE_S
    while (left := marked(marker)) and time.monotonic() < end:
        time.sleep(0.02)
    return left
