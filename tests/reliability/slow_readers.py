"""Two hundred clients that stop reading, and what the others notice of it.

An engine makes the tokens of a client that does not read as it makes all others: they are in its batch, and each of its
steps takes longer for them. What a gateway has to answer for is what comes on top of that. So the others' time to the
first token is compared with what it is while as many calls run on the same workers past the gateway, and are read; and,
to see the rest, while the two hundred read along, and with nobody beside the others. All of these take turns, so that
whatever else the machine does meets them all.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import grpc.aio

from tests.reliability.intruders import Reader, read_along, stall
from tests.reliability.services import FleetPlan, Service, fleet
from tests.reliability.verdict import Verdict
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc

_READERS, _TURNS = 200, 3
_PHASE_S, _WARM_UP_S = 15.0, 10.0  # in which what is held for a stalled reader comes to its bound
_RATE_PER_S = 15.0  # of the others
_TOKENS, _LOGPROBS = 2_000, 5  # more than are read
_MAX_GROWTH_MIB, _MAX_RATIO = 64.0, 1.1


async def run() -> Verdict:
    """All turns."""
    times_s: dict[str, list[float]] = defaultdict(list)
    growth_mib = 0.0
    rng = random.Random(1)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers, (gateway,) = await stack.enter_async_context(fleet(directory, _PLAN))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.address, options=CHANNEL_OPTIONS))
        stub: inference_service_pb2_grpc.InferenceServiceAsyncStub
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        await _others(stub, rng, _WARM_UP_S)
        base_mib, checkpoint = gateway.resident_mib, await _checkpoint_sha256(workers[0])
        connects: Mapping[str, Callable[[int], Awaitable[Reader]]] = {
            "past": lambda number: read_along(
                workers[number % len(workers)].address,
                number,
                tokens=_TOKENS,
                logprobs=_LOGPROBS,
                checkpoint_sha256=checkpoint,
            ),
            "stalled": lambda number: stall(gateway.address, number, tokens=_TOKENS, logprobs=_LOGPROBS),
            "reading": lambda number: read_along(gateway.address, number, tokens=_TOKENS, logprobs=_LOGPROBS),
        }
        for _ in range(_TURNS):
            times_s["nobody"] += await _others(stub, rng, _PHASE_S)
            for kind, connect in connects.items():
                readers = await asyncio.gather(*map(connect, range(_READERS)))
                await asyncio.sleep(_WARM_UP_S)
                times_s[kind] += await _others(stub, rng, _PHASE_S)
                if kind == "stalled":
                    growth_mib = max(growth_mib, gateway.resident_mib - base_mib)
                await _leave(readers)
    p50_s = {kind: median(times) for kind, times in times_s.items()}
    ratio = p50_s["stalled"] / p50_s["past"]
    wrong = [f"the others' first tokens take {ratio:.2f} of their time"] if ratio > _MAX_RATIO else []
    wrong += [f"the gateway has grown by {growth_mib:.0f} MiB"] if growth_mib > _MAX_GROWTH_MIB else []
    return Verdict(
        figure=f"{_READERS} readers: the gateway's memory {growth_mib:+.0f} MiB; the others' first token p50"
        f" {1000 * p50_s['stalled']:.1f} ms while these stall, {1000 * p50_s['past']:.1f} ms while as many calls run on"
        f" the workers past the gateway ({ratio - 1:+.1%}), {1000 * p50_s['reading']:.1f} ms while these read,"
        f" {1000 * p50_s['nobody']:.1f} ms without them",
        details={
            "ttft_p50_s": {kind: round(value, 5) for kind, value in p50_s.items()},
            "samples": {kind: len(times) for kind, times in times_s.items()},
            "growth_mib": round(growth_mib, 1),
        },
        wrong=wrong,
    )


_PLAN = FleetPlan(
    workers=2,
    gateways=1,
    worker_arguments=("--engine", "sim", "--sim-time-scale", "6"),
    gateway_arguments=("--max-reader-stall-s", "600"),
)


async def _checkpoint_sha256(worker: Service) -> str:
    async with grpc.aio.insecure_channel(worker.address) as channel:
        stub: worker_service_pb2_grpc.WorkerServiceAsyncStub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        return (await stub.GetModel(worker_service_pb2.GetModelRequest())).model.digests.checkpoint_sha256


async def _others(
    stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, rng: random.Random, duration_s: float
) -> list[float]:
    """The times to the first token of short requests that come at random."""
    numbers, ends_at = itertools.count(), time.monotonic() + duration_s
    async with asyncio.TaskGroup() as tasks:
        calls = []
        while time.monotonic() < ends_at:
            calls.append(tasks.create_task(_first_token_s(stub, f"{rng.random()} {next(numbers)}")))
            await asyncio.sleep(rng.expovariate(_RATE_PER_S))
    return [call.result() for call in calls]


async def _first_token_s(stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, text: str) -> float:
    request = inference_service_pb2.GenerateRequest(model="sim", text=text)
    request.sampling.max_output_tokens = 4
    call, begin = aiter(stub.Generate(request, timeout=60)), time.monotonic()
    await anext(call)
    first_s = time.monotonic() - begin
    async for _ in call:
        pass
    return first_s


async def _leave(readers: Sequence[Reader]) -> None:
    for reader in readers:
        reader.close()
    await asyncio.sleep(1.0)
