"""The bursts of ``tidegate bench`` against vLLM's AsyncLLM itself: what a front end is held against.

python tests/gpu/bare_engine.py MODEL_DIR 1,32,128,256 ROUNDS

One JSON object per burst.
"""

from __future__ import annotations

import asyncio
import sys
import time
from itertools import count
from statistics import median

from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from tests.gpu.bursts import OUTPUT_TOKENS, measure


async def main(model_dir: str, bursts: list[int], rounds: int) -> None:
    """Start the engine and print a row per burst."""
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=model_dir,
            load_format="dummy",
            max_model_len=4096,
            gpu_memory_utilization=0.5,
            max_num_seqs=256,
        )
    )
    numbers = count()
    params = SamplingParams(
        max_tokens=OUTPUT_TOKENS, min_tokens=OUTPUT_TOKENS, temperature=1.0, output_kind=RequestOutputKind.DELTA
    )

    async def read(ids: list[int]) -> tuple[float, float]:
        sent_at, last_at, ttft_s, gaps_s = time.monotonic(), 0.0, None, []
        async for output in engine.generate({"prompt_token_ids": ids}, params, str(next(numbers))):
            now, tokens = time.monotonic(), len(output.outputs[0].token_ids)
            if ttft_s is None:
                ttft_s = now - sent_at
            elif tokens:
                gaps_s += [(now - last_at) / tokens] * tokens
            last_at = now
        return ttft_s or 0.0, median(gaps_s)

    await measure("bare engine", read, bursts=bursts, rounds=rounds)
    engine.shutdown()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [int(size) for size in sys.argv[2].split(",")], int(sys.argv[3])))
