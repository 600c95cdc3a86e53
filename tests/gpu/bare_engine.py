"""The turns of tests/gpu/turns.py on vLLM's AsyncLLM itself: what a front end is held against.

python tests/gpu/bare_engine.py MODEL_DIR STEP_TOKENS KV_CACHE_BYTES
"""

from __future__ import annotations

import os
import sys
import time
from itertools import count
from typing import Any

import uvloop
from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from tests.gpu.answers import Answer
from tests.gpu.process_times import ProcessTimes
from tests.gpu.turns import take_turns


async def main(model_dir: str, step_tokens: int, kv_cache_bytes: int) -> None:
    """Start the engine and take turns."""
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=model_dir,
            load_format="dummy",
            max_model_len=4096,
            gpu_memory_utilization=0.3,
            kv_cache_memory_bytes=kv_cache_bytes,
            max_num_seqs=256,
            max_num_batched_tokens=step_tokens,
        )
    )
    numbers = count()

    async def read(ids: list[int], output_tokens: int) -> Answer:
        sent_at, arrivals = time.monotonic(), []
        metrics: Any = None
        params = SamplingParams(
            max_tokens=output_tokens, min_tokens=output_tokens, temperature=1.0, output_kind=RequestOutputKind.DELTA
        )
        async for output in engine.generate({"prompt_token_ids": ids}, params, str(next(numbers))):
            if tokens := len(output.outputs[0].token_ids):
                arrivals.append((time.monotonic(), tokens))
            metrics = output.metrics
        return Answer(sent_at=sent_at, arrivals=arrivals, engine_s=metrics.first_token_ts - metrics.queued_ts)

    processes = ProcessTimes({"front end": os.getpid()})
    await take_turns("bare engine", read, processes)
    engine.shutdown()


if __name__ == "__main__":
    model_dir, step_tokens, kv_cache_bytes = sys.argv[1:]
    uvloop.run(main(model_dir, int(step_tokens), int(kv_cache_bytes)))
