"""The turns of tests/gpu/turns.py through gateway and worker, by a client that keeps up with them.

python tests/gpu/gateway_path.py HOST:PORT MODEL GATEWAY_PID WORKER_PID

A client of grpc.aio, such as ``tidegate bench``, takes more CPU for a token than gateway and
worker together; this one speaks HTTP/2 by tidegate.http2.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress

import grpc
import uvloop

from tests.gpu.answers import Answer
from tests.gpu.process_times import ProcessTimes
from tests.gpu.turns import take_turns
from tidegate.client.health import GATEWAY, check_health
from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.limits import Limits
from tidegate.http2.transport import Flusher
from tidegate.inference.v1 import generation_pb2, inference_service_pb2

_START_LIMIT_S = 300.0
_GENERATE = "/tidegate.inference.v1.InferenceService/Generate"


async def until_ready(address: str) -> None:
    """Wait for a worker behind the gateway. Raises ``TimeoutError``."""
    async with asyncio.timeout(_START_LIMIT_S), grpc.aio.insecure_channel(address) as channel:
        while True:
            with suppress(grpc.RpcError):
                if await check_health(channel, GATEWAY, timeout_s=1.0) == "SERVING":
                    return
            await asyncio.sleep(1.0)


async def main(address: str, model: str, pids: dict[str, int]) -> None:
    """Wait for a worker and take turns."""
    await until_ready(address)
    host, _, port = address.rpartition(":")
    endpoint = Endpoint(role=Role.CLIENT, clock=time.monotonic, limits=Limits())
    flusher = Flusher(asyncio.get_running_loop())
    channel = Channel(endpoint, Target(host=host, port=int(port)), flusher=flusher)

    async def read(ids: list[int], output_tokens: int) -> Answer:
        sent_at, arrivals = time.monotonic(), []
        request = inference_service_pb2.GenerateRequest(
            model=model,
            token_ids=generation_pb2.TokenPrompt(ids=ids),
            sampling=generation_pb2.SamplingOptions(
                max_output_tokens=output_tokens, min_output_tokens=output_tokens, temperature=1.0
            ),
            output=generation_pb2.OutputOptions(include_token_ids=True),
        )
        call = await channel.call(_GENERATE)
        call.send(request.SerializeToString(), half_close=True)
        flusher.flush()  # its time runs, whatever comes behind it
        timing = generation_pb2.Timing()
        while (message := await call.receive()) is not None:
            now = time.monotonic()
            response = inference_service_pb2.GenerateResponse.FromString(message)
            if tokens := len(response.delta.token_ids):
                arrivals.append((now, tokens))
            elif response.HasField("finished"):
                timing = response.finished.timing
        engine_ns = timing.queue_duration.ToNanoseconds() + timing.prefill_duration.ToNanoseconds()
        return Answer(sent_at=sent_at, arrivals=arrivals, engine_s=engine_ns / 1e9)

    processes = ProcessTimes(pids | {"client": os.getpid()})
    await take_turns("gateway and worker", read, processes)
    channel.close()


if __name__ == "__main__":
    address, model, gateway_pid, worker_pid = sys.argv[1:]
    uvloop.run(main(address, model, {"gateway": int(gateway_pid), "worker": int(worker_pid)}))
