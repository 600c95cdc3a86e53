"""Workers that stand still for a moment, too short for anybody to give them up, and what hedging makes of that.

Two gateways have the same workers and the same load; one of them hedges.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio

from tests.reliability.books import samples, total
from tests.reliability.services import FleetPlan, Service, fleet
from tests.reliability.verdict import Verdict
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS

_SHARE = 0.05
_RATE_PER_S = 15.0  # of each gateway
_STALL_S, _EVERY_S = 1.5, 5.0
_PLAN = FleetPlan(workers=3, gateways=1, worker_arguments=("--engine", "sim", "--sim-time-scale", "2"))


async def run(*, seed: int, duration_s: float) -> Verdict:
    """Time to the first token with hedging and without, and what it costs."""
    rng = random.Random(seed)
    times_s: dict[str, list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers, (plain,) = await stack.enter_async_context(fleet(directory, _PLAN))
        targets = ",".join(worker.address for worker in workers)
        settings = ("--workers", targets, "--hedge-share", str(_SHARE), "--drain-grace-s", "5")
        hedging = Service("gateway", settings, directory / "hedging.log", environment={}, is_watched=False)
        await hedging.start()
        stack.push_async_callback(hedging.stop)
        await hedging.until_ready()
        ends_at = time.monotonic() + duration_s
        async with asyncio.TaskGroup() as tasks:
            for kind, gateway in (("plain", plain), ("hedging", hedging)):
                tasks.create_task(_load(gateway, random.Random(f"{seed} {kind}"), ends_at, times_s[kind]))
            while time.monotonic() < ends_at:
                await asyncio.sleep(_EVERY_S - _STALL_S)
                victim = rng.choice(workers)
                victim.signal(signal.SIGSTOP)
                await asyncio.sleep(_STALL_S)
                victim.signal(signal.SIGCONT)
        attempts = {kind: await _attempts(gateway) for kind, gateway in (("plain", plain), ("hedging", hedging))}
    shares = (0.5, 0.95, 0.99)
    quantiles = {kind: [_quantile(times, share) for share in shares] for kind, times in times_s.items()}
    cost = attempts["hedging"] / len(times_s["hedging"]) - 1
    told = {kind: "/".join(f"{1000 * value:.0f}" for value in found) for kind, found in quantiles.items()}
    return Verdict(
        figure=f"first token p50/p95/p99 {told['hedging']} ms with `--hedge-share {_SHARE}`, {told['plain']} ms"
        f" without; {cost:.1%} more attempts",
        details={
            "first_token_s": {kind: [round(value, 4) for value in found] for kind, found in quantiles.items()},
            "requests": {kind: len(times) for kind, times in times_s.items()},
            "attempts": attempts,
        },
        wrong=[] if cost <= 2 * _SHARE else [f"{cost:.1%} more attempts"],
    )


async def _load(gateway: Service, rng: random.Random, ends_at: float, times_s: list[float]) -> None:
    async with grpc.aio.insecure_channel(gateway.address, options=CHANNEL_OPTIONS) as channel:
        stub: inference_service_pb2_grpc.InferenceServiceAsyncStub
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        async with asyncio.TaskGroup() as tasks:
            for number in itertools.count():
                tasks.create_task(_first_token(stub, f"{rng.random()} {number}", times_s))
                await asyncio.sleep(rng.expovariate(_RATE_PER_S))
                if time.monotonic() >= ends_at:
                    break


async def _first_token(
    stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, text: str, times_s: list[float]
) -> None:
    request = inference_service_pb2.GenerateRequest(model="sim", text=text)
    request.sampling.max_output_tokens = 8
    call, begin = aiter(stub.Generate(request, timeout=60)), time.monotonic()
    await anext(call)
    times_s.append(time.monotonic() - begin)
    async for _ in call:
        pass


async def _attempts(gateway: Service) -> float:
    return total(await samples(gateway), "tidegate_attempts_total")


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
