"""Soak: several gateways in front of several sim workers under a random load, and what the workers' books say of it.

    python bench/soak.py [--duration 600] [--gateways 3] [--workers 4] [--seed 1]

Clients come at random, in changing numbers; one in ten goes away in the middle, one in ten has hardly any time. Every
load report of every worker is read. Exits with 1 when a promise is broken: an engine's pool used beyond its size, a
spread of load between workers beyond 15 % of a pool in more than 5 % of the samples, blocks still reserved two seconds
after the last stream has ended, or an answer that is neither an output nor a refusal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import fmean

import grpc
import grpc.aio

from bench.overload.score import quantile
from bench.overload.wire import service
from tidegate.inference.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.status import RpcError
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc

_BLOCKS, _TIME_SCALE = 2_048, 16.0
_MAX_OUTPUT_TOKENS = 400
_LOADED_SHARE = 0.5
_QUIET_S, _MAX_SPREAD, _SPREAD_SHARE = 2.0, 0.15, 0.95
_EXPECTED = {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}


@dataclass(slots=True, kw_only=True)
class Books:
    """What a worker's reports say."""

    reports: int = 0
    reserved: int = 0
    highest_reserved: int = 0
    highest_used: int = 0
    preemptions: int = 0
    longest_silence_s: float = 0.0  # between two reports; a gateway that bears 2.8 s takes the worker for lost


@dataclass(slots=True, kw_only=True)
class Tally:
    """What is found."""

    outcomes: Counter[str] = field(default_factory=Counter)
    spreads: list[float] = field(default_factory=list)
    began_at: float = 0.0
    unexpected_at_s: list[float] = field(default_factory=list)  # since the load began


async def watch(address: str, books: Books) -> None:
    """Read every load report."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        heard_at = time.monotonic()
        async for response in stub.WatchLoad(worker_service_pb2.WatchLoadRequest()):
            load, before = response.load_report, heard_at
            heard_at = time.monotonic()
            books.longest_silence_s = max(books.longest_silence_s, heard_at - before)
            books.reports += 1
            books.reserved = load.reserved_block_count
            books.highest_reserved = max(books.highest_reserved, load.reserved_block_count)
            books.highest_used = max(books.highest_used, load.total_block_count - load.free_block_count)
            books.preemptions = load.preemption_count


async def call(stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, rng: random.Random, tally: Tally) -> None:
    """One client."""
    fate = rng.random()
    prompt = [rng.randrange(3, 450) for _ in range(min(1_500, max(4, int(rng.lognormvariate(5.3, 0.9)))))]
    request = inference_service_pb2.GenerateRequest(
        model="sim",
        token_ids=generation_pb2.TokenPrompt(ids=prompt),
        sampling=generation_pb2.SamplingOptions(
            max_output_tokens=_MAX_OUTPUT_TOKENS,
            min_output_tokens=min(_MAX_OUTPUT_TOKENS, int(rng.lognormvariate(3.7, 0.8))),
            stop_token_ids=[3],
            logit_bias={3: 100.0},
        ),
        criticality=rng.choice((generation_pb2.CRITICALITY_CRITICAL, generation_pb2.CRITICALITY_SHEDDABLE)),
    )
    stream = stub.Generate(request, timeout=rng.uniform(0.01, 0.5) if fate < 0.1 else 120.0)  # noqa: PLR2004
    leaves_after = rng.randrange(1, 20) if fate > 0.9 else sys.maxsize  # noqa: PLR2004
    outcome, messages = "OK", 0
    try:
        async for _ in stream:
            messages += 1
            if messages == leaves_after:
                stream.cancel()
                outcome = "CANCELLED"
                break
    except grpc.aio.AioRpcError as failure:
        error = RpcError.from_call(failure)
        outcome = error.code.name if error.code.name in _EXPECTED else f"{error.code.name} {error.reason}"
    tally.outcomes[outcome] += 1
    if outcome not in _EXPECTED:
        tally.unexpected_at_s.append(round(time.monotonic() - tally.began_at, 1))


async def until_found(gateway: str, tally: Tally) -> None:
    """Wait until ``gateway`` has found workers."""
    async with grpc.aio.insecure_channel(gateway) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        for _ in range(600):
            models = await stub.ListModels(inference_service_pb2.ListModelsRequest(), wait_for_ready=True)
            if models.models:
                break
            await asyncio.sleep(0.1)
    tally.began_at = time.monotonic()


async def load(gateways: list[str], duration_s: float, rng: random.Random, tally: Tally) -> None:
    """Clients at a rate that changes every few seconds, from little to three times what the workers can take."""
    async with AsyncExitStack() as channels:
        stubs = [
            inference_service_pb2_grpc.InferenceServiceStub(
                await channels.enter_async_context(grpc.aio.insecure_channel(gateway, options=CHANNEL_OPTIONS))
            )
            for gateway in gateways
        ]
        ends_at = time.monotonic() + duration_s
        async with asyncio.TaskGroup() as calls:
            while (now := time.monotonic()) < ends_at:
                rate, until = rng.choice((5.0, 15.0, 30.0, 45.0)), now + rng.uniform(3, 10)
                while time.monotonic() < min(until, ends_at):
                    await asyncio.sleep(rng.expovariate(rate))
                    calls.create_task(call(rng.choice(stubs), random.Random(rng.random()), tally))


async def sample(books: list[Books], tally: Tally) -> None:
    """How far the worker most unlike the others is from their mean, twice a second, while they have much to do."""
    while True:
        await asyncio.sleep(0.5)
        shares = [book.reserved / _BLOCKS for book in books]
        mean = fmean(shares)
        if mean > _LOADED_SHARE:
            tally.spreads.append(max(abs(share - mean) for share in shares))


async def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Soak of gateways and sim workers.")
    parser.add_argument("--duration", type=float, default=600.0)
    parser.add_argument("--gateways", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    engine = ("--engine", "sim", "--sim-time-scale", str(_TIME_SCALE), "--kv-block-count", str(_BLOCKS))
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(service("worker", *engine)) for _ in range(arguments.workers)]
        flags = ("--workers", ",".join(workers))
        gateways = [await stack.enter_async_context(service("gateway", *flags)) for _ in range(arguments.gateways)]
        books, tally = [Books() for _ in workers], Tally()
        watching = [asyncio.create_task(watch(worker, book)) for worker, book in zip(workers, books, strict=True)]
        watching.append(asyncio.create_task(sample(books, tally)))
        await asyncio.gather(*(until_found(gateway, tally) for gateway in gateways))
        await load(gateways, arguments.duration, random.Random(arguments.seed), tally)
        await asyncio.sleep(_QUIET_S)
        left = [book.reserved for book in books]
        for task in watching:
            task.cancel()
    spread = quantile(tally.spreads, _SPREAD_SHARE)
    print(
        json.dumps(
            {
                "outcomes": dict(tally.outcomes),
                "reports": sum(book.reports for book in books),
                "highest_reserved_share": max(book.highest_reserved for book in books) / _BLOCKS,
                "highest_used_share": max(book.highest_used for book in books) / _BLOCKS,
                "preemptions": sum(book.preemptions for book in books),
                "spread_p50": round(quantile(tally.spreads, 0.5), 3),
                "spread_p95": round(spread, 3),
                "blocks_left_after_2_s": left,
                "longest_silence_s": round(max(book.longest_silence_s for book in books), 1),
                "unexpected_at_s": tally.unexpected_at_s[:100],
            }
        )
    )
    is_broken = (
        any(left)
        or max(book.highest_used for book in books) > _BLOCKS
        or spread > _MAX_SPREAD
        or not _EXPECTED.issuperset(tally.outcomes)
    )
    return int(is_broken)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
