"""A Ray cluster of one node on this machine, in an environment of its own, that believes in two GPUs."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.patience import PATIENCE_S
from tests.fakes.processes import marked
from tidegate.client.stack import free_port

_ROOT = Path(__file__).parents[2]
_OBJECT_STORE_BYTES = 80_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ray:
    """What a program needs that uses it."""

    python: Path
    environment: Mapping[str, str]

    @property
    def parts(self) -> set[int]:
        """The processes of engines, and of these one for each part."""
        return set(marked(self.environment["RAY_AUTH_TOKEN"])) & set(marked("ray::RayWorkerProc"))


def platform() -> str:
    """What the entry point below names: vLLM calls it in each of its processes."""
    return "tests.fakes.counted_cpu.CountedCpu"


def install_ray(directory: Path) -> Path:
    """An environment with Ray beside all that is installed for the tests; its Python."""
    venv.create(directory)
    python = directory / "bin/python"
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n{_ROOT}\n", encoding="utf-8")
    plugin = site / "counted_cpu-1.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: counted-cpu\nVersion: 1\n", encoding="utf-8")
    (plugin / "entry_points.txt").write_text(
        "[vllm.platform_plugins]\ncounted_cpu = tests.fakes.running_ray:platform\n", encoding="utf-8"
    )
    install = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python))
    subprocess.run((*install, "--constraints", "constraints.txt", "ray"), cwd=_ROOT, check=True, timeout=2 * PATIENCE_S)
    return python


@asynccontextmanager
async def running_ray(python: Path) -> AsyncIterator[Ray]:
    """Start it, wait until it takes connections, and end it afterwards with all its processes."""
    port, token = free_port(), secrets.token_hex(32)
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    # Ray's sockets have long names below it, and those of a pytest directory are too long already.
    with tempfile.TemporaryDirectory(prefix="ray") as home:
        head = await asyncio.create_subprocess_exec(
            *(str(python), "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"),
            *("--num-cpus=2", "--num-gpus=2", "--include-dashboard=false", "--disable-usage-stats"),
            *(f"--temp-dir={home}", f"--object-store-memory={_OBJECT_STORE_BYTES}"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        reading: asyncio.Task[bytes] | None = None
        try:
            if head.stdout is None:
                raise AssertionError("no pipe")
            async with asyncio.timeout(PATIENCE_S):
                while (line := await head.stdout.readline()) and b"Ray runtime started" not in line:
                    pass
            if not line:
                raise AssertionError(f"Ray ended with {await head.wait()}")
            reading = asyncio.create_task(head.stdout.read())
            yield Ray(python=python, environment=environment | {"RAY_ADDRESS": f"127.0.0.1:{port}"})
        finally:
            if head.returncode is None:
                head.terminate()
            await head.wait()
            if reading is not None:
                await reading
