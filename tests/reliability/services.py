"""Gateways and workers as processes of their own, each at a port that it keeps when it is restarted."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from tidegate.client.health import check_health
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc

_READY_TIMEOUT_S, _STOP_TIMEOUT_S = 240.0, 60.0
_IMPATIENT = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50))


class Service:
    """One process, or its successor at the same address."""

    def __init__(self, module: str, arguments: tuple[str, ...], log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._command = (
            sys.executable,
            "-m",
            module,
            "--listen",
            self.address,
            "--admin-listen",
            "127.0.0.1:0",
            *arguments,
        )
        self._log = log
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Begin; see ``until_ready``."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*self._command, stdout=log, stderr=log)

    async def until_ready(self) -> None:
        """Wait until its health check says that it serves; a gateway has one of its workers then."""
        async with (
            asyncio.timeout(_READY_TIMEOUT_S),
            grpc.aio.insecure_channel(self.address, options=_IMPATIENT) as channel,
        ):
            while not await _is_serving(channel):
                if self.process is None or self.process.returncode is not None:
                    raise AssertionError(self._log.read_text(encoding="utf-8")[-2000:])
                await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def gone(self) -> int:
        """Wait for its end; returns the exit code."""
        if self.process is None:
            raise AssertionError("it was never started")
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            return await self.process.wait()

    async def stop(self) -> None:
        """End it, if it still runs."""
        if self.process is not None and self.process.returncode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            await self.gone()


@asynccontextmanager
async def fleet(
    directory: Path, *, workers: int, gateways: int, worker_arguments: tuple[str, ...], grace_s: float
) -> AsyncIterator[tuple[list[Service], list[Service]]]:
    """Workers and gateways, ready to serve, and ended afterwards."""
    grace = ("--drain-grace-s", str(grace_s))
    behind = [
        Service("worker", ("--engine", "sim", *worker_arguments, *grace), directory / f"worker-{number}.log")
        for number in range(workers)
    ]
    targets = ",".join(service.address for service in behind)
    before = [
        Service("gateway", ("--workers", targets, *grace), directory / f"gateway-{number}.log")
        for number in range(gateways)
    ]
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
