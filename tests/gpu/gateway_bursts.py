"""The bursts of ``tidegate bench`` through gateway and worker, by a client that keeps up with them.

python tests/gpu/gateway_bursts.py HOST:PORT MODEL GATEWAY_PID WORKER_PID 1,32,128,256 ROUNDS

One JSON object per burst. A client of grpc.aio, such as ``tidegate bench``, takes more CPU for a token than gateway and
worker together; this one speaks HTTP/2 by tidegate.http2.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from statistics import median

import uvloop

from tests.gpu.bursts import OUTPUT_TOKENS, Reading, measure
from tests.gpu.process_times import ProcessTimes
from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.limits import Limits
from tidegate.http2.transport import Flusher
from tidegate.inference.v1 import generation_pb2, inference_service_pb2

_GENERATE = "/tidegate.inference.v1.InferenceService/Generate"


async def main(address: str, model: str, pids: dict[str, int], bursts: list[int], rounds: int) -> None:
    """Print a row per burst."""
    host, _, port = address.rpartition(":")
    endpoint = Endpoint(role=Role.CLIENT, clock=time.monotonic, limits=Limits())
    flusher = Flusher(asyncio.get_running_loop())
    channel = Channel(endpoint, Target(host=host, port=int(port)), flusher=flusher)
    sampling = generation_pb2.SamplingOptions(
        max_output_tokens=OUTPUT_TOKENS, min_output_tokens=OUTPUT_TOKENS, temperature=1.0
    )

    async def read(ids: list[int]) -> Reading:
        sent_at, last_at, ttft_s, received = time.monotonic(), 0.0, None, 0
        gaps_s: list[float] = []
        request = inference_service_pb2.GenerateRequest(
            model=model,
            token_ids=generation_pb2.TokenPrompt(ids=ids),
            sampling=sampling,
            output=generation_pb2.OutputOptions(include_token_ids=True),
        )
        call = await channel.call(_GENERATE)
        call.send(request.SerializeToString(), half_close=True)
        flusher.flush()  # its time runs, whatever comes behind it
        timing = generation_pb2.Timing()
        while (message := await call.receive()) is not None:
            now = time.monotonic()
            response = inference_service_pb2.GenerateResponse.FromString(message)
            tokens = len(response.delta.token_ids)
            if tokens:
                received += tokens
                if ttft_s is None:
                    ttft_s = now - sent_at
                else:
                    gaps_s += [(now - last_at) / tokens] * tokens
                last_at = now
            elif response.HasField("finished"):
                timing = response.finished.timing
        if ttft_s is None or received != OUTPUT_TOKENS:
            raise ValueError(f"{received} tokens came instead of {OUTPUT_TOKENS}")
        engine_ns = timing.queue_duration.ToNanoseconds() + timing.prefill_duration.ToNanoseconds()
        return Reading(ttft_s=ttft_s, itl_s=median(gaps_s), engine_s=engine_ns / 1e9)

    processes = ProcessTimes(pids | {"client": os.getpid()})
    await measure("gateway and worker", read, bursts=bursts, rounds=rounds, processes=processes)
    channel.close()


if __name__ == "__main__":
    address, model, gateway_pid, worker_pid, bursts, rounds = sys.argv[1:]
    pids = {"gateway": int(gateway_pid), "worker": int(worker_pid)}
    uvloop.run(main(address, model, pids, [int(size) for size in bursts.split(",")], int(rounds)))
