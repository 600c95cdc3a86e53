"""The life of vLLM's processes: not shorter than the worker's drain, and not longer than the worker."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess


@contextlib.contextmanager
def children_without_sigint() -> Iterator[None]:
    """Processes started inside never see SIGINT, since a signal mask is inherited.

    Ctrl-C in a terminal goes to the whole process group; vLLM's processes would end at once, under requests that our
    drain still waits for. They end by SIGTERM, from ``stop``.
    """
    resource_tracker.ensure_running()  # started later, it would clear the mask
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def kill_children() -> None:
    """End the processes that this one has started, at once; they would be waited for at our own end."""
    for child in multiprocessing.active_children():
        child.kill()


def end_with_parent() -> None:
    """In a process that another one started: die when that one is gone, however it went.

    A vLLM plugin, named in pyproject.toml: vLLM runs it in each of its processes. A worker that is killed cannot stop
    them, and they do not look after it: they would hold the GPU's memory for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), name="end with parent", daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
