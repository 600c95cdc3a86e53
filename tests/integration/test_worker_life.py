from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tidegate.client.stack import free_port, state_dir
from worker.default_model import prepare_default_model


async def _start(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "--admin-listen", "127.0.0.1:0", *arguments), stderr=PIPE
    )


async def _ready_address(process: Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(r"ready on (\S+): ", line.decode()):
            return found[1]
    raise AssertionError("the worker ended before it was ready")


async def test_a_supervised_worker_that_is_killed_serves_again() -> None:
    """At the same address, and SIGTERM still ends all of it with 0."""
    process = await _start("--supervise", "--engine", "sim", "--listen", f"127.0.0.1:{free_port()}")
    try:
        address = await _ready_address(process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
        os.kill(int(children), signal.SIGKILL)
        assert address == await _ready_address(process)
        process.send_signal(signal.SIGTERM)
        _, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()

    assert 0 == process.returncode


@pytest.mark.vllm
async def test_sigterm_does_not_wait_for_a_model_that_loads() -> None:
    """The process ends with 0, and so do those of vLLM."""
    model_dir = state_dir() / "models" / "smollm2-135m-instruct"
    await asyncio.to_thread(prepare_default_model, model_dir)
    process = await _start("--engine", "vllm", "--model-dir", str(model_dir), "--listen", "127.0.0.1:0")
    assert process.stderr is not None
    try:
        async for line in process.stderr:
            if b": loading " in line:
                break
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()  # until the last holder of the pipe is gone
    finally:
        if process.returncode is None:
            process.kill()

    assert (0, True) == (process.returncode, b"vLLM is up" not in log)
