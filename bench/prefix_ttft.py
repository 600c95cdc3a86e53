"""Time to the first token of prompts that begin alike: first request of a prefetched prefix, later ones, fresh ones.

    python bench/prefix_ttft.py --write prefixes.jsonl --vocabulary-size 460
    python -m worker --engine sim --prefix-file prefixes.jsonl ...
    python bench/prefix_ttft.py --target 127.0.0.1:50051

The second call makes the same prefixes as the first one, from the same seed. Requests come one at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from pathlib import Path
from statistics import median

import grpc.aio

from tidegate.inference.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS

_PREFIXES, _PREFIX_TOKENS, _TAIL_TOKENS = 8, 2_000, 50
_WARM_ROUNDS = 3


def prefixes(seed: int, vocabulary_size: int) -> list[list[int]]:
    """The same for the same arguments."""
    rng = random.Random(seed)
    return [[rng.randrange(3, vocabulary_size) for _ in range(_PREFIX_TOKENS)] for _ in range(_PREFIXES)]


async def measure(target: str, seed: int, vocabulary_size: int | None) -> dict[str, float]:
    """Medians in milliseconds, and the cached share of the prefix at its first request."""
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        (model,) = (await stub.ListModels(inference_service_pb2.ListModelsRequest())).models
        size = vocabulary_size or model.limits.vocabulary_size
        tails = random.Random(time.time_ns())

        async def ttft(prefix: list[int]) -> tuple[float, int]:
            request = inference_service_pb2.GenerateRequest(
                model=model.name,
                token_ids=generation_pb2.TokenPrompt(
                    ids=[*prefix, *(tails.randrange(3, size) for _ in range(_TAIL_TOKENS))]
                ),
                sampling=generation_pb2.SamplingOptions(max_output_tokens=4),
            )
            sent_at, first_s, cached = time.monotonic(), 0.0, 0
            async for response in stub.Generate(request, timeout=60):
                first_s = first_s or time.monotonic() - sent_at
                cached = max(cached, response.finished.usage.cached_prompt_token_count)
            return first_s, cached

        fresh = [await ttft([tails.randrange(3, size) for _ in range(_PREFIX_TOKENS)]) for _ in range(_PREFIXES)]
        first, warm = [], []
        for prefix in prefixes(seed, size):
            first.append(await ttft(prefix))
            warm += [await ttft(prefix) for _ in range(_WARM_ROUNDS)]
    ms = {
        name: 1e3 * median(s for s, _ in of) for name, of in (("fresh", fresh), ("prefetched", first), ("warm", warm))
    }
    return {
        **{f"{name}_ttft_p50_ms": round(value, 2) for name, value in ms.items()},
        "prefetched_of_warm": round(ms["prefetched"] / ms["warm"], 3),
        "cached_share": round(sum(cached for _, cached in first) / (_PREFIXES * _PREFIX_TOKENS), 3),
    }


def main() -> None:
    """Write the prefixes, or measure."""
    parser = argparse.ArgumentParser(description="TTFT of prefetched prefixes.")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--vocabulary-size", type=int, help="the same in both calls; the model's by default")
    parser.add_argument("--target")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.write and arguments.vocabulary_size:
        lines = (json.dumps({"token_ids": ids}) for ids in prefixes(arguments.seed, arguments.vocabulary_size))
        arguments.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif arguments.target:
        print(json.dumps(asyncio.run(measure(arguments.target, arguments.seed, arguments.vocabulary_size))))
    else:
        parser.error("--write FILE --vocabulary-size N, or --target GATEWAY")


if __name__ == "__main__":
    main()
