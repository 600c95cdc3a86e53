from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import grpc.aio
import pytest

import worker
from tests.fakes.patience import PATIENCE_S
from tidegate.client.health import WORKER, check_health

pytestmark = pytest.mark.usefixtures("data_plane")


async def _start(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "worker", *arguments, stderr=PIPE)


async def _ready_address(process: Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(r"ready on (\S+): ", line.decode()):
            return found[1]
    raise AssertionError("the worker ended before it was ready")


async def test_process_says_where_it_serves_and_ends_with_0_on_sigterm() -> None:
    """A free port is told on stderr; SIGTERM is a clean end."""
    process = await _start("--engine", "sim", "--listen", "127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(await _ready_address(process)) as channel:
            assert "SERVING" == await check_health(channel, WORKER, timeout_s=PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        _, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()

    assert 0 == process.returncode


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--engine", "sim", "--model-dir", "no-such-directory"), "no-such-directory"),
        (("--engine", "sim", "--profile", "no-such-profile"), "h200-llama3-8b-awq"),
        (("--engine", "sim", "--listen", "256.0.0.1:0"), "256.0.0.1:0"),
    ],
)
async def test_process_that_cannot_start_says_why(arguments: tuple[str, ...], complaint: str) -> None:
    """The exit code is 1, and the log names what is wrong."""
    process = await _start("--listen", "127.0.0.1:0", *arguments)
    _, log = await process.communicate()

    assert 1 == process.returncode
    assert complaint in log.decode()


async def test_a_model_is_named_as_its_directory_however_that_is_written(tmp_path: Path) -> None:
    """Neither "." nor ".." has a name of its own."""
    shutil.copytree(Path(worker.__file__).parent / "sim_model", tmp_path / "model")
    (tmp_path / "model" / "below").mkdir()
    directory = str(tmp_path / "model" / "below" / "..")
    process = await _start("--engine", "sim", "--listen", "127.0.0.1:0", "--model-dir", directory)
    process_log = b""
    assert process.stderr is not None
    async for line in process.stderr:
        process_log += line
        if b"ready on" in line:
            process.send_signal(signal.SIGTERM)
    await process.wait()
    assert ": model model, engine sim" in process_log.decode()
