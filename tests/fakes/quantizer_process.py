"""Quantizing in a process of its own, to be killed there."""

from __future__ import annotations

import multiprocessing
from multiprocessing.process import BaseProcess

from quantizer.pipeline import Job

# The server imports them once, and every process starts from there: PyTorch and AutoAWQ take ten seconds to import.
_PRELOADED = ["quantizer.pipeline", "quantizer.backends.autoawq", "quantizer.backends.autoawq_cure"]


def start_quantizer(job: Job) -> BaseProcess:
    """Start the run of ``job``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=_run, args=(job,), daemon=True)
    process.start()
    return process


def _run(job: Job) -> None:
    import torch

    from quantizer.backends.autoawq import AutoAwqBackend
    from quantizer.pipeline import run
    from quantizer.progress import Silent

    torch.set_num_threads(1)
    run(job, AutoAwqBackend(), Silent())
