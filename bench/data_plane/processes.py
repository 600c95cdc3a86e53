"""Starts the programs under test, and ends them."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.data_plane.toolchain import ROOT

_READY = re.compile(r"ready on (\S+:\d+)")
_START_S = 60.0
_STOP_S = 5.0
# The ephemeral range of Linux begins at 32768; below it a port that is free stays free.
_FIRST_PORT, _LAST_PORT = 21_000, 32_000


class StartError(Exception):
    """A program did not come up."""


@contextmanager
def announced(command: Sequence[str], log: Path) -> Iterator[tuple[int, str]]:
    """A program that takes a free port and writes "ready on host:port"; its process id and address."""
    with _running(command, log) as process:
        found = (ready[1] for text in _written(process, log) if (ready := _READY.search(text)))
        yield process.pid, next(found)


@contextmanager
def listening(command: Sequence[str], port: int, log: Path) -> Iterator[tuple[int, str]]:
    """A program that serves on ``port``; its process id and address."""
    with _running(command, log) as process:
        for _ in _written(process, log):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield process.pid, f"127.0.0.1:{port}"


def free_port() -> int:
    """A port that nothing listens on."""
    start = _FIRST_PORT + os.getpid() * 7 % (_LAST_PORT - _FIRST_PORT)
    for port in itertools.chain(range(start, _LAST_PORT), range(_FIRST_PORT, start)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise StartError("no free port")


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    # A group of its own, so that what it starts ends with it.
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _written(process: subprocess.Popen[bytes], log: Path) -> Iterator[str]:
    """What it has written so far, again and again. Raises ``StartError`` when it ends or takes too long."""
    give_up_at = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < give_up_at:
        yield log.read_text(errors="replace")
        time.sleep(0.05)
    raise StartError(f"{process.args!r} does not come up:\n{log.read_text(errors='replace')[-2000:]}")


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
