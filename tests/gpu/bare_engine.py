"""The bursts of ``tidegate bench`` against vLLM's AsyncLLM itself: what a front end is held against.

python tests/gpu/bare_engine.py MODEL_DIR STEP_TOKENS 1,32,128,256 ROUNDS

One JSON object per burst.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import count
from statistics import median
from typing import Any

import uvloop
from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from tests.gpu.bursts import OUTPUT_TOKENS, Reading, measure
from tests.gpu.process_times import ProcessTimes


async def main(model_dir: str, step_tokens: int, bursts: list[int], rounds: int) -> None:
    """Start the engine and print a row per burst."""
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=model_dir,
            load_format="dummy",
            max_model_len=4096,
            gpu_memory_utilization=0.5,
            max_num_seqs=256,
            max_num_batched_tokens=step_tokens,
        )
    )
    numbers = count()
    params = SamplingParams(
        max_tokens=OUTPUT_TOKENS, min_tokens=OUTPUT_TOKENS, temperature=1.0, output_kind=RequestOutputKind.DELTA
    )

    async def read(ids: list[int]) -> Reading:
        sent_at, last_at, ttft_s, gaps_s = time.monotonic(), 0.0, None, []
        metrics: Any = None
        async for output in engine.generate({"prompt_token_ids": ids}, params, str(next(numbers))):
            now, tokens = time.monotonic(), len(output.outputs[0].token_ids)
            if ttft_s is None:
                ttft_s = now - sent_at
            elif tokens:
                gaps_s += [(now - last_at) / tokens] * tokens
            last_at, metrics = now, output.metrics
        return Reading(
            ttft_s=ttft_s or 0.0,
            itl_s=median(gaps_s),
            engine_s=metrics.first_token_ts - metrics.queued_ts,
        )

    processes = ProcessTimes({"front end": os.getpid()})
    await measure("bare engine", read, bursts=bursts, rounds=rounds, processes=processes)
    engine.shutdown()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), [int(size) for size in sys.argv[3].split(",")], int(sys.argv[4])))
