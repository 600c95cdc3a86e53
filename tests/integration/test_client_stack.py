"""``tidegate demo`` and ``tidegate serve`` with the sim engine: real services, and no process left, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.processes import marked, wait_until_gone
from tidegate.client.serve import how_to_call
from tidegate.client.stack import free_port

_ROOT = Path(__file__).parents[2]


class _Machine:
    """Runs ``tidegate`` with a state directory of its own, and knows its processes by their environment."""

    def __init__(self, state_dir: Path) -> None:
        self.marker = f"stack-test-{uuid.uuid4().hex}"
        self.logs = state_dir / "logs"
        self._environ = os.environ | {
            "TIDEGATE_HOME": str(state_dir),
            "STACK_TEST": self.marker,
            "PYTHONPATH": str(_ROOT),
        }

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await self.run(sys.executable, "-m", "tidegate.client", *arguments)

    async def run(self, *command: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environ,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
        """``tidegate serve`` once it serves, and its target."""
        target = f"127.0.0.1:{free_port()}"
        process = await self.start("serve", "--engine", "sim", "--listen", target)
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while b"is served on" not in await process.stdout.readline():
                assert process.returncode is None
        yield process, target

    def left_over(self) -> list[int]:
        return wait_until_gone(self.marker)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[_Machine]:
    """A machine on which nothing runs; whatever a failed test leaves is ended."""
    machine = _Machine(tmp_path)
    yield machine
    for pid in marked(machine.marker):
        os.kill(pid, signal.SIGKILL)


async def _output(process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    return out.decode()


async def test_demo_answers_shows_figures_and_leaves_nothing(machine: _Machine) -> None:
    """The first thing that a newcomer runs."""
    process = await machine.start("demo", "--engine", "sim", "--prompt", "What is the capital of France?")
    out = await _output(process)

    assert 0 == process.returncode, out
    assert [] == [word for word in ("TTFT", "ITL", "tokens/s", "KV cache blocks") if word not in out]
    assert [] == machine.left_over()


async def test_a_worker_that_cannot_start_is_explained_by_its_log(machine: _Machine, tmp_path: Path) -> None:
    """The exit code is that of a local failure; the gateway is gone too."""
    process = await machine.start("demo", "--engine", "sim", "--model-dir", str(tmp_path))
    out = await _output(process)

    assert 1 == process.returncode, out
    assert "worker.log" in out
    assert "cannot start" in out
    assert [] == machine.left_over()


async def test_an_address_in_use_is_told(machine: _Machine) -> None:
    """The gateway ends, which is noticed however far the worker has come."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await machine.start("serve", "--engine", "sim", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        out = await _output(process)

    assert 1 == process.returncode, out
    assert "cannot listen" in out
    assert [] == machine.left_over()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_while_starting_stops_everything(machine: _Machine, signum: signal.Signals) -> None:
    """Before the answer, too, nothing is left."""
    process = await machine.start("demo", "--engine", "sim")
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        while b"Starting the worker" not in await process.stdout.readline():
            assert process.returncode is None
    process.send_signal(signum)
    await _output(process)

    assert 130 == process.returncode
    assert [] == machine.left_over()


async def test_serve_serves_until_ctrl_c(machine: _Machine) -> None:
    """`tidegate chat` gets an answer from it; after Ctrl-C nothing is left."""
    async with machine.serving() as (serve, target):
        chat = await machine.start("chat", "--target", target, "--json", "--max-output-tokens", "8", "Hello")
        lines = [json.loads(line) for line in (await _output(chat)).splitlines()]
        serve.send_signal(signal.SIGINT)
        await _output(serve)

    assert ("started", "stats") == (next(iter(lines[0])), next(iter(lines[-1])))
    assert 8 == lines[-1]["stats"]["output_tokens"]
    assert 130 == serve.returncode
    assert [] == machine.left_over()


async def test_everything_that_we_tell_people_to_type_works(machine: _Machine) -> None:
    """The commands that serve prints, the Python of the README, and the Python example."""
    async with machine.serving() as (serve, target):
        _, buf, python = how_to_call(target=target, model="sim")
        (readme,) = re.findall(r"```python\n(.*?)```", (_ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        readme = readme.replace("127.0.0.1:50051", target)
        commands = [
            ("bash", "-c", buf),
            ("bash", "-c", python),
            (sys.executable, "-c", readme),
            (sys.executable, str(_ROOT / "examples/python/generate.py"), target, "sim", "Hello"),
        ]
        outputs = [await _output(await machine.run(*command)) for command in commands]
        serve.send_signal(signal.SIGINT)
        await _output(serve)

    assert "FINISH_REASON_LENGTH" in outputs[0]
    assert [] == [output for output in outputs[1:] if len(output) < 20 or "Error" in output]


async def test_a_killed_serve_leaves_nothing(machine: _Machine) -> None:
    """SIGKILL gives it no time to stop its children; they notice by themselves."""
    async with machine.serving() as (serve, _):
        serve.kill()
        await _output(serve)

    assert [] == machine.left_over()


async def test_serve_ends_when_a_child_does(machine: _Machine) -> None:
    """With the child's name, its exit code and its log."""
    async with machine.serving() as (serve, _):
        workers = [pid for pid in marked(machine.marker) if _runs_module(pid, "worker")]
        os.kill(workers[0], signal.SIGKILL)
        out = await _output(serve)

    assert 1 == serve.returncode
    assert "worker ended" in out
    assert [] == machine.left_over()


def _runs_module(pid: int, module: str) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return command[1:3] == [b"-m", module.encode()]
