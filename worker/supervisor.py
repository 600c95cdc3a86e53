"""``python -m worker --supervise``: a small process that starts the worker again when its engine has died.

An engine that died took its GPU memory and its compiled kernels with it; nothing of that can be mended in its process.
For places without an orchestrator: where Kubernetes or systemd restart the worker, it is not needed.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from worker.restart_policy import RestartPolicy

_LOGGER = logging.getLogger(__name__)

GAVE_UP = 3
"""The exit code when the worker died too often."""
# These are answers, not accidents: a shutdown that was asked for, and settings that no restart makes usable.
_FINAL = (0, 2)
_PR_SET_PDEATHSIG = 1


class Supervisor:
    """Runs one command for as long as it makes sense."""

    def __init__(self, command: Sequence[str], policy: RestartPolicy) -> None:
        self._command = command
        self._policy = policy
        self._is_stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Until the command ends for good; returns its exit code, or ``GAVE_UP``. SIGTERM and SIGINT are passed on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        while True:
            begin = time.monotonic()
            # It ends with this process, however that ends: nobody else knows of it.
            self._child = subprocess.Popen(self._command, preexec_fn=_end_with_parent)  # noqa: S603, PLW1509
            if self._is_stopping.is_set():  # the signal came while there was no child
                self._child.terminate()
            code = self._child.wait()
            if code in _FINAL or self._is_stopping.is_set():
                return code if code >= 0 else 128 - code
            wait_s = self._policy.wait_s(lived_s=time.monotonic() - begin)
            if wait_s is None:
                _LOGGER.error("the worker died again (exit code %d); giving up", code)
                return GAVE_UP
            _LOGGER.warning("the worker died (exit code %d); starting it again in %.1f s", code, wait_s)
            if self._is_stopping.wait(wait_s):
                return 0

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._is_stopping.set()
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def supervised_command(arguments: Sequence[str]) -> list[str]:
    """The worker's command line, without the supervisor's own flag."""
    return [sys.executable, "-m", "worker", *(argument for argument in arguments if argument != "--supervise")]


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
