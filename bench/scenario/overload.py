"""`make scenario-overload`: four simulated workers, and three tenants of whom one asks for far more than its share.

Everything runs on this machine and ends by itself after DURATION seconds. What to look at meanwhile is printed; what it
shows is told in docs/overload-scenario.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from deploy import panels
from tidegate.client.child import Child, ChildFailedError
from tidegate.client.health import GATEWAY, check_health
from tidegate.client.stack import free_port
from tidegate.inference.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.metadata import TENANT
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.status import RpcError

_WORKERS = 4
_BLOCKS = 150  # of 16 tokens for each worker: few, so that a small machine can fill them
_TIME_SCALE = 4.0  # slower than the machine imitated, so that few calls a second are many
_PROMPT = "word " * 150
_TARGET = "127.0.0.1:50051"
_CONFIG = Path(__file__).parents[2] / "deploy/telemetry/prometheus-local.yml"
_LAST_S = 5.0  # before the end of the load the panels are shown

_PLACES = """\
  the status page     http://127.0.0.1:9464/
  in a terminal       .venv/bin/tidegate top
"""
_PROMETHEUS = """\
  Prometheus          http://127.0.0.1:9090/alerts
  the dashboards      .venv/bin/python -m deploy.panels "who is refused"
"""
_NO_PROMETHEUS = """\
  Prometheus          is not installed; make system-tools does that on Debian
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one tenant asks for."""

    tenant: str
    per_s: float
    criticality: generation_pb2.Criticality.ValueType


_LOADS = (
    Load(tenant="assistant", per_s=4, criticality=generation_pb2.CRITICALITY_CRITICAL),
    Load(tenant="search", per_s=4, criticality=generation_pb2.CRITICALITY_CRITICAL),
    Load(tenant="batch", per_s=30, criticality=generation_pb2.CRITICALITY_SHEDDABLE),
)


async def run(duration_s: float, logs: Path) -> None:
    """Start all, send load, print what the dashboards show of it and what became of it, stop all.

    Raises ``ChildFailedError`` when something does not start.
    """
    workers = [f"127.0.0.1:{free_port()}" for _ in range(_WORKERS)]
    async with AsyncExitStack() as stack:
        started = Started(stack, logs)
        for number, address in enumerate(workers):
            admin = f"127.0.0.1:{9465 + number}"
            sim = ["--engine=sim", f"--kv-block-count={_BLOCKS}", "--sim-mean-output-tokens=300"]
            flags = [f"--listen={address}", f"--admin-listen={admin}", *sim, f"--sim-time-scale={_TIME_SCALE}"]
            await started.service("worker", f"worker-{number}.log", *flags)
        workers_flag = f"--workers={','.join(workers)}"
        await started.service("gateway", "gateway.log", workers_flag, f"--listen={_TARGET}", "--trust-tenant-metadata")
        has_prometheus = await started.prometheus()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(_TARGET, options=CHANNEL_OPTIONS))
        async with asyncio.timeout(60):
            while not await _is_serving(channel):
                started.raise_for_the_ended()
                await asyncio.sleep(0.2)
        sys.stdout.write(f"Overload for {duration_s:.0f} s. Look at it:\n{_PLACES}")
        sys.stdout.write(_PROMETHEUS if has_prometheus else _NO_PROMETHEUS)
        sys.stdout.flush()
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        ends: dict[str, Counter[str]] = {load.tenant: Counter() for load in _LOADS}
        async with asyncio.TaskGroup() as tasks:
            for load in _LOADS:
                tasks.create_task(_arrivals(stub, load, ends[load.tenant], duration_s))
            if has_prometheus:
                tasks.create_task(_show_panels(after_s=duration_s - _LAST_S))
        print("\nWhat became of the calls")
        for tenant, counts in ends.items():
            print(f"  {tenant:10} " + ", ".join(f"{end} {count}" for end, count in counts.most_common()))


class Started:
    """What runs, until ``stack`` ends."""

    def __init__(self, stack: AsyncExitStack, logs: Path) -> None:
        self._stack = stack
        self._logs = logs
        self._children: list[Child] = []

    async def service(self, module: str, log: str, *flags: str) -> None:
        """A service of ours."""
        await self._start(module, [sys.executable, "-m", module, *flags], log)

    async def prometheus(self) -> bool:
        """Prometheus, where it is installed; whether it is."""
        command = shutil.which("prometheus")
        if command is None:
            return False
        data = self._stack.enter_context(tempfile.TemporaryDirectory())
        flags = [f"--config.file={_CONFIG}", f"--storage.tsdb.path={data}", "--web.listen-address=127.0.0.1:9090"]
        await self._start("prometheus", [command, *flags, "--enable-feature=exemplar-storage"], "prometheus.log")
        return True

    def raise_for_the_ended(self) -> None:
        """Raises ``ChildFailedError`` for what has ended by itself."""
        for child in self._children:
            if child.has_ended:
                raise child.failure("has ended")

    async def _start(self, name: str, command: Sequence[str], log: str) -> None:
        child = await Child.start(name, command, log_path=self._logs / log, grace_s=5)
        self._stack.push_async_callback(child.stop, hurry=True)
        self._children.append(child)


async def _show_panels(*, after_s: float) -> None:
    await asyncio.sleep(after_s)
    try:
        lines = await asyncio.to_thread(lambda: list(panels.shown(panels.prometheus(panels.LOCAL), "who is refused")))
    except OSError as error:
        lines = [f"Prometheus does not answer: {error}"]
    print("\nWhat the dashboards show", *lines, sep="\n", flush=True)


async def _is_serving(channel: grpc.aio.Channel) -> bool:
    try:
        return await check_health(channel, GATEWAY, timeout_s=2.0) == "SERVING"
    except grpc.aio.AioRpcError:
        return False


async def _arrivals(stub: object, load: Load, ends: Counter[str], duration_s: float) -> None:
    rng = random.Random(load.tenant)
    end_at = asyncio.get_running_loop().time() + duration_s
    async with asyncio.TaskGroup() as calls:
        while asyncio.get_running_loop().time() < end_at:
            calls.create_task(_call(stub, load, f"{rng.random()} {_PROMPT}", ends))
            await asyncio.sleep(rng.expovariate(load.per_s))


async def _call(stub: object, load: Load, prompt: str, ends: Counter[str]) -> None:
    request = inference_service_pb2.GenerateRequest(model="sim", text=prompt, criticality=load.criticality)
    request.sampling.max_output_tokens = 200
    try:
        async for _ in stub.Generate(request, timeout=60, metadata=((TENANT, load.tenant),)):  # type: ignore[attr-defined]
            pass
    except grpc.aio.AioRpcError as error:
        rpc_error = RpcError.from_call(error)
        ends[rpc_error.reason or rpc_error.code.name] += 1
    else:
        ends["answered"] += 1


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    logs = Path(os.environ.get("TIDEGATE_HOME") or ".tidegate").absolute() / "logs"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(run(arguments.seconds, logs))
    except ChildFailedError as error:
        sys.exit("\n".join((str(error), *error.tail, f"Its log: {error.log_path}")))


if __name__ == "__main__":
    main()
