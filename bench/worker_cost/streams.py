"""A process that opens streams at a worker and reads them: not the one that is measured."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection

import uvloop

from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.limits import Limits
from tidegate.http2.transport import Flusher
from tidegate.inference.v1 import inference_service_pb2
from tidegate.rpc.token_ids import packed
from tidegate.worker.v1 import worker_service_pb2

PROMPT_TOKENS = 512
_FIRST_ORDINARY_TOKEN, _PROMPT_VOCABULARY = 100, 300
_METHOD = "/tidegate.worker.v1.WorkerService/Generate"

# Of each stream, when its tokens came: seconds of the machine's monotonic clock.
Arrivals = list[list[float]]


def prompt(number: int) -> list[int]:
    """A prompt that is a stream's own, by its first tokens."""
    digits = [number // _PROMPT_VOCABULARY, number % _PROMPT_VOCABULARY]
    return [_FIRST_ORDINARY_TOKEN + token for token in (*digits, *(place % 300 for place in range(PROMPT_TOKENS - 2)))]


async def read_streams(address: str, *, streams: int, tokens: int, checkpoint_sha256: str) -> Arrivals:
    """Read so many streams of so many tokens, in another process. Raises ``EOFError`` when it fails."""
    here, there = multiprocessing.Pipe(duplex=False)
    arguments = (address, streams, tokens, checkpoint_sha256, there)
    reader = multiprocessing.get_context("spawn").Process(target=_read_all, args=arguments)
    reader.start()
    there.close()  # so that the end of the process is the end of the pipe
    arrivals: Arrivals = await asyncio.to_thread(here.recv)
    reader.join()
    return arrivals


def _read_all(address: str, streams: int, tokens: int, checkpoint: str, pipe: Connection) -> None:
    pipe.send(uvloop.run(_read(address, streams, tokens, checkpoint)))


async def _read(address: str, streams: int, tokens: int, checkpoint: str) -> Arrivals:
    host, _, port = address.rpartition(":")
    endpoint = Endpoint(role=Role.CLIENT, clock=time.monotonic, limits=Limits())
    channel = Channel(endpoint, Target(host=host, port=int(port)), flusher=Flusher(asyncio.get_running_loop()))

    async def read(number: int) -> list[float]:
        request = worker_service_pb2.GenerateRequest(
            checkpoint_sha256=checkpoint, prompt_token_ids=packed(prompt(number))
        )
        request.sampling.max_output_tokens = request.sampling.min_output_tokens = tokens
        request.output.include_token_ids = True
        call = await channel.call(_METHOD)
        call.send(request.SerializeToString(), half_close=True)
        arrivals: list[float] = []
        while (message := await call.receive()) is not None:
            now = time.monotonic()
            response = inference_service_pb2.GenerateResponse.FromString(message)
            arrivals += [now] * len(response.delta.token_ids)
        return arrivals

    arrivals = await asyncio.gather(*map(read, range(streams)))
    channel.close()
    return list(arrivals)
