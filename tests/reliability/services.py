"""Gateways and workers as processes of their own, each at a port that it keeps when it is restarted."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from tidegate.client.health import check_health
from tidegate.client.stack import free_port
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc

_READY_TIMEOUT_S, _STOP_TIMEOUT_S = 240.0, 60.0
_IMPATIENT = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50))


class Service:
    """One process, or its successor at the same address."""

    def __init__(
        self,
        module: str,
        arguments: tuple[str, ...],
        log: Path,
        *,
        environment: Mapping[str, str],
        is_watched: bool,
    ) -> None:
        """See ``FleetPlan``."""
        self.address, self.admin_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        listen = ("--listen", self.address, "--admin-listen", self.admin_address)
        wrapper = ("tests.reliability.watched",) if is_watched else ()
        self._command = (sys.executable, "-m", *wrapper, module, *listen, *arguments)
        self._log = log
        self._environment = {**os.environ, **environment}
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Begin; see ``until_ready``."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=log, env=self._environment
            )

    async def until_ready(self) -> None:
        """Wait until its health check says that it serves; a gateway has one of its workers then."""
        async with (
            asyncio.timeout(_READY_TIMEOUT_S),
            grpc.aio.insecure_channel(self.address, options=_IMPATIENT) as channel,
        ):
            while not await _is_serving(channel):
                if not self.is_running:
                    raise AssertionError(self._log.read_text(encoding="utf-8")[-2000:])
                await asyncio.sleep(0.02)

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        if self.process is None:
            raise AssertionError("it was never started")
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.returncode is None

    @property
    def resident_mib(self) -> float:
        """Physical memory of the process (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 2**20

    @property
    def open_files(self) -> int:
        """Its file descriptors (Linux)."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 - which would open one more

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self.process is not None and self.is_running:
            self.process.send_signal(number)

    async def gone(self) -> int:
        """Wait for its end; returns the exit code."""
        if self.process is None:
            raise AssertionError("it was never started")
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            return await self.process.wait()

    async def stop(self) -> None:
        """End it, if it still runs."""
        if self.is_running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            await self.gone()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """How many of each, and with which settings beside those that tests need."""

    workers: int
    gateways: int
    worker_arguments: tuple[str, ...]
    gateway_arguments: tuple[str, ...] = ()
    grace_s: float = 5.0
    otlp_endpoint: str = ""  # where they send their spans; nowhere when empty
    environment: Mapping[str, str] = field(default_factory=dict)  # goes over this process's own
    is_watched: bool = False  # whether it tells how many tasks it has, see ``watched``


@asynccontextmanager
async def fleet(directory: Path, plan: FleetPlan) -> AsyncIterator[tuple[list[Service], list[Service]]]:
    """Workers and gateways, ready to serve, and ended afterwards."""
    common: tuple[str, ...] = ("--drain-grace-s", str(plan.grace_s))
    if plan.otlp_endpoint:
        common += ("--otlp-endpoint", plan.otlp_endpoint)

    def services(module: str, count: int, arguments: tuple[str, ...]) -> list[Service]:
        return [
            Service(
                module,
                (*arguments, *common),
                directory / f"{module}-{number}.log",
                environment=plan.environment,
                is_watched=plan.is_watched,
            )
            for number in range(count)
        ]

    behind = services("worker", plan.workers, plan.worker_arguments)
    targets = ",".join(service.address for service in behind)
    settings = ("--workers", targets, "--trust-tenant-metadata", *plan.gateway_arguments)
    before = services("gateway", plan.gateways, settings)
    try:
        for service in (*behind, *before):
            await service.start()
        for service in (*behind, *before):
            await service.until_ready()
        yield behind, before
    finally:
        for service in (*before, *behind):
            await service.stop()


async def load_of(stub: worker_service_pb2_grpc.WorkerServiceAsyncStub) -> worker_service_pb2.LoadReport:
    """One load report of a worker, as of now."""
    watch = stub.WatchLoad(worker_service_pb2.WatchLoadRequest())
    try:
        async for response in watch:
            return response.load_report
    finally:
        watch.cancel()
    raise AssertionError("the watch ended without a report")


async def _is_serving(channel: grpc.aio.Channel) -> bool:
    try:
        return "SERVING" == await check_health(channel, "", timeout_s=5)
    except grpc.aio.AioRpcError:
        return False
