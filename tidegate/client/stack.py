"""One worker and one gateway on this machine, as children of this process."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import grpc.aio

from tidegate.client.child import Child, ChildFailedError
from tidegate.client.embedded_model import EMBEDDED_MODEL, prepare_embedded_model
from tidegate.client.health import GATEWAY, WORKER, check_health
from tidegate.client.steps import Note, Steps
from tidegate.rpc.server import CHANNEL_OPTIONS

# 46,000 tokens of that model: enough for a few people, and no burden on a laptop. vLLM would take most of the memory.
_DEFAULT_KV_CACHE_BYTES = 2**30

# Generous: the first start of vLLM on a slow, busy machine. The log shows whether it still moves.
_START_LIMIT_S = 900.0
_POLL_S = 0.2
# Below those that Linux gives to whoever asks for any: nobody comes by one of these by chance.
_PORTS = range(20_000, 30_000)
_GRACE_S = 15.0


class EngineKind(StrEnum):
    """The engines that a worker can run."""

    VLLM = "vllm"
    SIM = "sim"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What to start. ``model_dir`` None is the embedded model, made under ``state_dir``; sim needs none."""

    engine: EngineKind
    model_dir: Path | None
    listen: str
    state_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What runs. Targets are ``host:port``."""

    gateway: Child
    gateway_target: str
    worker: Child
    worker_target: str

    async def ended(self) -> ChildFailedError:
        """Wait until one of the two ends by itself; why."""
        waits = {asyncio.ensure_future(child.wait()): child for child in (self.gateway, self.worker)}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        first = done.pop()
        return waits[first].failure(f"ended with code {first.result()}")


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where models and logs are kept: TIDEGATE_HOME, or ``.tidegate`` in the working directory."""
    return Path(environ.get("TIDEGATE_HOME") or ".tidegate").absolute()


@asynccontextmanager
async def local_stack(options: StackOptions, steps: Steps) -> AsyncIterator[Stack]:
    """Start worker and gateway, wait until they serve, and stop both at the end. Raises ``ChildFailedError``."""
    worker_target = f"127.0.0.1:{free_port()}"
    children: list[Child] = []
    is_serving = False

    async def start(module: str, *words: str, **arguments: str) -> Child:
        command = [sys.executable, "-m", module, *words]
        for name, value in arguments.items():
            command += [f"--{name.replace('_', '-')}", value]
        log_path = options.state_dir / "logs" / f"{module}.log"
        child = await Child.start(module, command, log_path=log_path, grace_s=_GRACE_S)
        children.append(child)
        return child

    try:
        # The gateway waits for workers anyway, and is up long before a model is loaded.
        gateway = await start("gateway", workers=worker_target, listen=options.listen)
        arguments = {"engine": options.engine.value, "listen": worker_target}
        model_dir = options.model_dir
        if model_dir is None and options.engine is EngineKind.VLLM:
            model_dir = await prepare_embedded_model(options.state_dir / "models", start, steps)
            arguments["model_name"] = EMBEDDED_MODEL
            arguments["kv_cache_bytes"] = str(_DEFAULT_KV_CACHE_BYTES)
        if model_dir is not None:
            arguments["model_dir"] = str(model_dir)
        worker = await start("worker", **arguments)
        with steps.step(f"Starting the worker ({options.engine.value})") as note:
            await _until_serving(worker, worker_target, WORKER, note, beside=gateway)
        with steps.step("Connecting the gateway") as note:
            await _until_serving(gateway, options.listen, GATEWAY, note, beside=worker)
        is_serving = True
        yield Stack(gateway=gateway, gateway_target=options.listen, worker=worker, worker_target=worker_target)
    finally:
        with steps.step("Stopping"):
            # An engine that is still loading does not hear SIGTERM, and has nothing to lose.
            await asyncio.gather(*(child.stop(hurry=not is_serving) for child in children))


def free_port() -> int:
    """A port of 127.0.0.1 that is free now. Somebody else may take it first; the child's log then says so."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.choice(_PORTS)))
            port: int = probe.getsockname()[1]
            return port


async def _until_serving(child: Child, target: str, service: str, note: Note, *, beside: Child) -> None:
    options = (*CHANNEL_OPTIONS, ("grpc.max_reconnect_backoff_ms", 300))
    try:
        async with asyncio.timeout(_START_LIMIT_S), grpc.aio.insecure_channel(target, options=options) as channel:
            while not await _is_serving(channel, service):
                for either in (child, beside):
                    if either.has_ended:
                        raise either.failure(f"ended with code {await either.wait()} before it was ready")
                note(child.progress())
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise child.failure(f"was not ready after {_START_LIMIT_S:.0f} s") from None


async def _is_serving(channel: grpc.aio.Channel, service: str) -> bool:
    try:
        return await check_health(channel, service, timeout_s=2.0) == "SERVING"
    except grpc.aio.AioRpcError:
        return False
