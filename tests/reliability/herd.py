"""Thousands of clients call at one instant, just when a worker that was killed is back.

Each gets its output or a refusal that says when to come again; none is cancelled, none waits for ever, and the fleet is
not sent its load twice.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio

from tests.reliability.books import left_under_way, samples, total
from tests.reliability.nemesis import until_used
from tests.reliability.services import FleetPlan, Service, fleet
from tests.reliability.verdict import Verdict
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.status import RpcError

_CHANNELS, _BYSTANDERS = 20, 20
_TIMEOUT_S = 120.0
_TOKENS = 8
_MAX_AMPLIFICATION = 1.1
_GENERATE = "tidegate.inference.v1.InferenceService/Generate"
_CONFIG = json.loads((Path(__file__).parents[2] / "protos" / "service_config.json").read_text(encoding="utf-8"))
_SHIPPED = json.dumps({key: value for key, value in _CONFIG.items() if key != "healthCheckConfig"})

_PLAN = FleetPlan(workers=2, gateways=1, worker_arguments=("--engine", "sim", "--sim-time-scale", "4"))


async def run(*, clients: int) -> Verdict:
    """``clients`` come at once."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (victim, other), (gateway,) = await stack.enter_async_context(fleet(directory, _PLAN))
        options = (
            *(option for option in CHANNEL_OPTIONS if option[0] != "grpc.enable_retries"),
            *(("grpc.enable_retries", 1), ("grpc.service_config", _SHIPPED)),
        )
        stubs: list[inference_service_pb2_grpc.InferenceServiceAsyncStub] = []
        for _ in range(_CHANNELS):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.address, options=options))
            stubs.append(inference_service_pb2_grpc.InferenceServiceStub(channel))
        async with asyncio.TaskGroup() as tasks:
            bystanders = [tasks.create_task(_bystander(stubs[0], number)) for number in range(_BYSTANDERS)]
            for worker in (victim, other):
                await until_used(worker)
            await _kill(victim)
            for bystander in bystanders:
                bystander.cancel()
        received_before, given_before = await _load(gateway)
        begin = time.monotonic()
        ends = await asyncio.gather(*(_call(stubs[number % _CHANNELS], f"Herd {number}") for number in range(clients)))
        seconds = time.monotonic() - begin
        received, given = await _load(gateway)
        wrong = await left_under_way((victim, other, gateway))
    return _verdict(Counter(ends), (received - received_before, given - given_before), seconds, wrong)


def _verdict(ends: Counter[str], load: tuple[float, float], seconds: float, wrong: Sequence[str]) -> Verdict:
    clients, served = ends.total(), ends["FINISHED"]
    by_clients, by_gateway = load[0] / clients, load[1] / max(1, served)
    refused = clients - served
    wrong = [*wrong, *(f"{count} x {end}" for end, count in ends.items() if end.startswith("WRONG"))]
    if max(by_clients, by_gateway) > _MAX_AMPLIFICATION:
        wrong.append(f"retried: {by_clients:.2f} calls for each client's, {by_gateway:.2f} attempts for each served")
    return Verdict(
        figure=f"{clients} clients in {seconds:.0f} s: {served} served, {refused} told when to come again, 0 cancelled;"
        f" {by_clients:.2f} calls for each client's, {by_gateway:.2f} attempts for each one served",
        details={"ends": dict(ends), "calls": load[0], "attempts": load[1], "seconds": round(seconds, 1)},
        wrong=wrong,
    )


async def _kill(victim: Service) -> None:
    victim.signal(signal.SIGKILL)
    await victim.gone()
    await victim.start()
    await victim.until_ready()
    await until_used(victim)


async def _bystander(stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, number: int) -> None:
    while True:
        await _call(stub, f"Bystander {number}", tokens=100)


async def _call(stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, text: str, *, tokens: int = _TOKENS) -> str:
    """How a call ended; what no client should see begins with WRONG."""
    request = inference_service_pb2.GenerateRequest(model="sim", text=text)
    request.sampling.max_output_tokens = request.sampling.min_output_tokens = tokens
    is_finished = False
    try:
        async for response in stub.Generate(request, timeout=_TIMEOUT_S):
            is_finished = response.HasField("finished")
    except grpc.aio.AioRpcError as call_error:
        error = RpcError.from_call(call_error)
        is_honest = error.reason and error.retry_after_s is not None
        return f"{'' if is_honest else 'WRONG '}{error.code.name} {error.reason} {'' if is_honest else error.message}"
    return "FINISHED" if is_finished else "WRONG OK without Finished"


async def _load(gateway: Service) -> tuple[float, float]:
    """How many calls the gateway was sent, and how many attempts at workers it made that these did not refuse."""
    found = await samples(gateway)
    received = total(found, "rpc_server_call_duration_seconds_count", rpc_method=_GENERATE)
    refused = total(found, "tidegate_attempts_total", tidegate_outcome="refused")
    return received, total(found, "tidegate_attempts_total") - refused
