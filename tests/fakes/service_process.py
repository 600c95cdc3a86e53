"""A gateway or a worker as a process of its own, on a free port of localhost."""

from __future__ import annotations

import asyncio
import re
import resource
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.patience import PATIENCE_S

_FREE_PORTS = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
_READY = re.compile(rb"ready on (\S+:\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceProcess:
    """The process, and where it serves."""

    process: asyncio.subprocess.Process
    address: str

    @property
    def resident_mib(self) -> float:
        """Physical memory of the process, in MiB (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 2**20


@asynccontextmanager
async def service_process(
    module: str,
    *arguments: str,
    python: Path = Path(sys.executable),
    environment: Mapping[str, str] | None = None,
    ready_within_s: float = PATIENCE_S,
) -> AsyncIterator[ServiceProcess]:
    """Start ``python -m module``, wait until its log says where it is ready, and end it afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-m", module, *_FREE_PORTS, *arguments), env=environment, stderr=asyncio.subprocess.PIPE
    )
    if process.stderr is None:
        raise AssertionError("no pipe")
    log = process.stderr
    reading: asyncio.Task[bytes] | None = None
    try:
        async with asyncio.timeout(ready_within_s):
            while (line := await log.readline()) and not (ready := _READY.search(line)):
                pass
        if not line:
            raise AssertionError(f"{module} ended with {await process.wait()} before it was ready")
        reading = asyncio.create_task(log.read())  # so that the pipe does not fill up
        yield ServiceProcess(process=process, address=ready[1].decode() if ready else "")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading
