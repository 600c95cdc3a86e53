"""`make scenario-overload`: four simulated workers, and three tenants of whom one asks for far more than its share.

Everything runs on this machine and ends by itself after DURATION seconds. What to look at meanwhile is printed; what it
shows is told in docs/overload-scenario.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from tidegate.client.child import Child
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
    """Start all, send load, print what became of it, stop all."""
    workers = [f"127.0.0.1:{free_port()}" for _ in range(_WORKERS)]
    async with AsyncExitStack() as stack:
        for number, address in enumerate(workers):
            arguments: tuple[str, ...] = (
                "--engine",
                "sim",
                "--kv-block-count",
                str(_BLOCKS),
                "--sim-mean-output-tokens",
                "300",
            )
            arguments += ("--sim-time-scale", str(_TIME_SCALE))
            admin = f"127.0.0.1:{9465 + number}"
            await _start(
                stack, "worker", logs / f"worker-{number}.log", "--listen", address, "--admin-listen", admin, *arguments
            )
        target = "127.0.0.1:50051"
        await _start(
            stack,
            "gateway",
            logs / "gateway.log",
            "--workers",
            ",".join(workers),
            "--listen",
            target,
            "--trust-tenant-metadata",
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS))
        async with asyncio.timeout(60):
            while not await _is_serving(channel):  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.2)
        print(
            f"Overload for {duration_s:.0f} s. Look at it: http://127.0.0.1:9464/ or `.venv/bin/tidegate top`",
            flush=True,
        )
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        ends: dict[str, Counter[str]] = {load.tenant: Counter() for load in _LOADS}
        async with asyncio.TaskGroup() as tasks:
            for load in _LOADS:
                tasks.create_task(_arrivals(stub, load, ends[load.tenant], duration_s))
        for tenant, counts in ends.items():
            print(f"{tenant:10} " + ", ".join(f"{end} {count}" for end, count in counts.most_common()))


async def _start(stack: AsyncExitStack, module: str, log_path: Path, *arguments: str) -> None:
    child = await Child.start(module, [sys.executable, "-m", module, *arguments], log_path=log_path, grace_s=5)
    stack.push_async_callback(child.stop, hurry=True)


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
    asyncio.run(run(arguments.seconds, logs))


if __name__ == "__main__":
    main()
