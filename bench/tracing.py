"""What tracing costs: CPU time of gateway and worker together for the same requests, traced and not, turn by turn.

``python -m bench.tracing --endpoint http://127.0.0.1:4317``; without an endpoint the collector is a dead one. Ratios
are of medians over the rounds. Each request is 512 prompt tokens (as text) and 128 output tokens on
the simulated engine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time

import grpc.aio

from gateway.app import Gateway
from gateway.config import GatewaySettings
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.telemetry.setup import Telemetry, setup
from worker.app import Worker
from worker.config import WorkerSettings

_MODES = ("untraced", "sampled 0 %", "sampled 100 %")
_AT_ONCE = 16


async def run(mode: str, endpoint: str, requests: int) -> float:
    """CPU seconds for a request."""
    os.environ["OTEL_TRACES_SAMPLER"] = "parentbased_always_off" if mode == _MODES[1] else "parentbased_always_on"
    is_traced = mode != _MODES[0]
    telemetries = [
        setup(name, endpoint=endpoint) if is_traced else Telemetry.silent() for name in ("gateway", "worker")
    ]
    worker = Worker(
        WorkerSettings(engine="sim", listen="127.0.0.1:0", admin_listen="", sim_time_scale=0.01),
        telemetry=telemetries[1],
    )
    lives = [asyncio.create_task(worker.run())]
    await worker.ready.wait()
    settings = GatewaySettings(workers=(worker.address,), listen="127.0.0.1:0", admin_listen="")
    gateway = Gateway(settings, telemetries[0])
    lives.append(asyncio.create_task(gateway.run()))
    await gateway.listening.wait()
    while not gateway.fleet.is_serving:  # noqa: ASYNC110 - a start
        await asyncio.sleep(0.01)
    async with grpc.aio.insecure_channel(gateway.address, options=CHANNEL_OPTIONS) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        request = inference_service_pb2.GenerateRequest(model="sim", text="word " * 512)
        request.sampling.max_output_tokens = request.sampling.min_output_tokens = 128

        async def some(count: int) -> None:
            for _ in range(count):
                async for _ in stub.Generate(request):
                    pass

        await asyncio.gather(*(some(2) for _ in range(_AT_ONCE)))
        began = time.process_time()
        await asyncio.gather(*(some(requests // _AT_ONCE) for _ in range(_AT_ONCE)))
        spent = time.process_time() - began
    gateway.stop()
    worker.stop()
    await asyncio.gather(*lives)
    for telemetry in telemetries:
        await asyncio.to_thread(telemetry.shutdown)
    return spent / (requests // _AT_ONCE * _AT_ONCE)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", default="http://127.0.0.1:1")
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    spent: dict[str, list[float]] = {mode: [] for mode in _MODES}
    for _ in range(arguments.rounds):
        for mode in _MODES:
            spent[mode].append(asyncio.run(run(mode, arguments.endpoint, arguments.requests)))
    base = statistics.median(spent[_MODES[0]])
    for mode in _MODES:
        middle = statistics.median(spent[mode])
        print(f"{mode:15} {middle * 1e3:7.2f} ms of CPU a request, {middle / base - 1:+.1%}")


if __name__ == "__main__":
    main()
