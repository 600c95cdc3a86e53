"""The real thing: gateway and worker as processes, and a trace sent to them over gRPC in real time."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio

from bench.overload.score import Answer, EngineFigures, Score, score
from bench.overload.setting import BATCHED_TOKENS, TOTAL_BLOCKS
from bench.overload.trace import Trace
from bench.overload.wire_client import Errand, run_errand
from gateway.config import GatewaySettings
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc

_READY = re.compile(rb"ready on (\S+:\d+)")
# Client processes have to be up, and the engine idle again, before the first request is due.
_LEAD_S = 5.0
_FREE_PORTS = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Where the processes serve."""

    gateway: str
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a trace is sent. ``time_scale`` is the duration of one of its seconds."""

    processes: int
    time_scale: float


@asynccontextmanager
async def sim_stack(*, time_scale: float) -> AsyncIterator[Stack]:
    """A worker with the sim engine in the size that was measured, and a gateway."""
    engine = (
        *("--engine", "sim", "--sim-time-scale", str(time_scale)),
        *("--kv-block-count", str(TOTAL_BLOCKS), "--max-batched-tokens", str(BATCHED_TOKENS)),
    )
    wait_s = GatewaySettings.model_fields["max_wait_s"].default * time_scale
    async with (
        service("worker", *engine) as worker,
        service("gateway", "--workers", worker, "--max-wait-s", str(wait_s)) as gateway,
    ):
        yield Stack(gateway=gateway, worker=worker)


async def send(stack: Stack, warm_up: Trace | None, trace: Trace, pace: Pace) -> Score:
    """Send ``trace`` once ``warm_up`` has come to its end, and judge what came of it."""
    if warm_up is not None:
        await _send(stack, warm_up, pace)
    watch = _Watch()
    watching = asyncio.create_task(watch.run(stack.worker))
    try:
        answers = await _send(stack, trace, pace)
    finally:
        watching.cancel()
    return score("Tidegate over gRPC", answers, window_s=trace.window_s, engine=watch.figures)


async def _send(stack: Stack, trace: Trace, pace: Pace) -> Sequence[Answer]:
    numbered = tuple(enumerate(trace.arrivals))
    errands = [
        Errand(
            target=stack.gateway,
            arrivals=numbered[process :: pace.processes],
            starts_at=time.time() + _LEAD_S,
            time_scale=pace.time_scale,
            prompts=trace.name,
        )
        for process in range(pace.processes)
    ]
    # Spawned, since gRPC does not survive a fork.
    with ProcessPoolExecutor(pace.processes, mp_context=multiprocessing.get_context("spawn")) as processes:
        loop = asyncio.get_running_loop()
        parts = await asyncio.gather(*(loop.run_in_executor(processes, run_errand, errand) for errand in errands))
    return [answer for _, answer in sorted((item for part in parts for item in part), key=lambda item: item[0])]


class _Watch:
    """Reads the worker's load reports."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._last = 0
        self._highest_kv_use = 0.0

    @property
    def figures(self) -> EngineFigures:
        return EngineFigures(preemptions=self._last - (self._first or 0), highest_kv_use=self._highest_kv_use)

    async def run(self, worker: str) -> None:
        async with grpc.aio.insecure_channel(worker) as channel:
            stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
            async for response in stub.WatchLoad(worker_service_pb2.WatchLoadRequest()):
                load = response.load_report
                if self._first is None:
                    self._first = load.preemption_count
                self._last = load.preemption_count
                use = 1 - load.free_block_count / max(1, load.total_block_count)
                self._highest_kv_use = max(self._highest_kv_use, use)


@asynccontextmanager
async def service(module: str, *arguments: str) -> AsyncIterator[str]:
    """Run ``python -m module`` for as long as the context lasts; gives its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *_FREE_PORTS, *arguments, stderr=asyncio.subprocess.PIPE
    )
    if process.stderr is None:
        raise RuntimeError("no pipe")
    log, lines = process.stderr, list[bytes]()
    reading: asyncio.Task[bytes] | None = None
    try:
        while (line := await log.readline()) and not (ready := _READY.search(line)):
            lines.append(line)
        if not line:
            raise RuntimeError(f"{module} did not start: {b''.join(lines[-5:]).decode()}")
        reading = asyncio.create_task(log.read())  # so that the pipe does not fill up
        yield ready[1].decode() if ready else ""
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading
