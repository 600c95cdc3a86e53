"""The bursts of ``tidegate bench`` against vLLM's AsyncLLM itself: what a front end is held against.

    python tests/gpu/bare_engine.py MODEL_DIR 1,32,128,256 ROUNDS

One JSON object per burst, with the names that ``tidegate bench --json`` uses.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from statistics import median

from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

PROMPT_TOKENS, OUTPUT_TOKENS = 512, 128


def percentile(values: list[float], share: float) -> float:
    """As in tidegate/client/bench.py, which this file does not import: it is to measure vLLM alone."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def read(engine: AsyncLLM, request_id: str, ids: list[int]) -> tuple[float, float]:
    """TTFT and median ITL of one request, in seconds."""
    params = SamplingParams(
        max_tokens=OUTPUT_TOKENS,
        min_tokens=OUTPUT_TOKENS,
        temperature=1.0,
        output_kind=RequestOutputKind.DELTA,
    )
    sent_at, last_at, ttft_s, gaps_s = time.monotonic(), 0.0, None, []
    async for output in engine.generate({"prompt_token_ids": ids}, params, request_id):
        now, tokens = time.monotonic(), len(output.outputs[0].token_ids)
        if ttft_s is None:
            ttft_s = now - sent_at
        elif tokens:
            gaps_s += [(now - last_at) / tokens] * tokens
        last_at = now
    return ttft_s or 0.0, median(gaps_s)


async def main(model_dir: str, bursts: list[int], rounds: int) -> None:
    """Start the engine, warm it up, and print a row per burst."""
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=model_dir,
            load_format="dummy",
            max_model_len=4096,
            gpu_memory_utilization=0.5,
            max_num_seqs=256,
        )
    )
    rng, served = random.Random(0), 0

    async def burst(concurrency: int) -> list[tuple[float, float]]:
        nonlocal served
        prompts = [[rng.randrange(100, 128256) for _ in range(PROMPT_TOKENS)] for _ in range(concurrency)]
        served += concurrency
        return await asyncio.gather(*(read(engine, f"{served}-{i}", ids) for i, ids in enumerate(prompts)))

    await burst(2)
    for concurrency in bursts:
        started_at, results = time.monotonic(), []
        for _ in range(rounds):
            results += await burst(concurrency)
        wall_s = time.monotonic() - started_at
        row = {
            "concurrency": concurrency,
            "finished": len(results),
            "ttft_p50_ms": 1e3 * percentile([r[0] for r in results], 0.5),
            "ttft_p99_ms": 1e3 * percentile([r[0] for r in results], 0.99),
            "itl_p50_ms": 1e3 * percentile([r[1] for r in results], 0.5),
            "tokens_per_s": len(results) * OUTPUT_TOKENS / wall_s,
        }
        print(json.dumps({"path": "bare engine", **row}), flush=True)  # noqa: T201 - its output
    engine.shutdown()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [int(count) for count in sys.argv[2].split(",")], int(sys.argv[3])))
