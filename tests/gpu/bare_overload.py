"""The trace of ``bench.overload`` against vLLM's AsyncLLM itself: what an admission policy is held against.

    PYTHONPATH=. python tests/gpu/bare_overload.py MODEL_DIR RATE [SEED]

Prints one JSON object, with the names that ``python -m bench.overload --json`` uses. Requests end as they do there, and
their text is not made, which is less work than a worker does.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase

from bench.overload.score import Answer, EngineFigures, score
from bench.overload.setting import BATCHED_TOKENS, DURATION_S, TOTAL_BLOCKS
from bench.overload.table import json_lines
from bench.overload.trace import MAX_OUTPUT_TOKENS, Arrival, Trace, poisson

VOCABULARY_SIZE = 128_256
WARM_UP_S = 10.0


class Watch(StatLoggerBase):  # type: ignore[misc] # vLLM is untyped here
    """Adds up what the engine tells of its steps."""

    preemptions = 0
    highest_kv_use = 0.0

    def __init__(self, *_: Any, **__: Any) -> None:
        """Nothing of the configuration matters."""

    def record(self, scheduler_stats: Any = None, iteration_stats: Any = None, *_: Any, **__: Any) -> None:
        """After each step."""
        if iteration_stats is not None:
            Watch.preemptions += iteration_stats.num_preempted_reqs
        if scheduler_stats is not None:
            Watch.highest_kv_use = max(Watch.highest_kv_use, scheduler_stats.kv_cache_usage)

    def log_engine_initialized(self) -> None:
        """Asked for by the base class."""


async def call(engine: AsyncLLM, name: str, arrival: Arrival, zero: float) -> Answer:
    """One request, when it is due."""
    loop = asyncio.get_running_loop()
    rng = random.Random(name)
    stop = VOCABULARY_SIZE - 1
    ids = [rng.randrange(100, 120_000) for _ in range(arrival.prompt_tokens)]
    params = SamplingParams(
        max_tokens=MAX_OUTPUT_TOKENS,
        min_tokens=arrival.output_tokens,
        stop_token_ids=[stop],
        logit_bias={stop: 100.0},
        temperature=1.0,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )
    await asyncio.sleep(zero + arrival.arrival_s - loop.time())
    answer = Answer(arrival_s=arrival.arrival_s)
    async for output in engine.generate({"prompt_token_ids": ids}, params, name):
        tokens = [token for token in output.outputs[0].token_ids if token != stop]
        if tokens:
            answer.last_token_at = loop.time() - zero
            answer.output_tokens += len(tokens)
            if answer.first_token_at is None:
                answer.first_token_at = answer.last_token_at
    answer.is_complete = True
    return answer


async def send(engine: AsyncLLM, trace: Trace) -> list[Answer]:
    """All requests of ``trace``."""
    zero = asyncio.get_running_loop().time() + 1.0
    calls = (call(engine, f"{trace.name} {number}", arrival, zero) for number, arrival in enumerate(trace.arrivals))
    return await asyncio.gather(*calls)


async def main(model_dir: str, rate: float, seed: int) -> None:
    """Start the engine, warm it up, and print what became of the trace."""
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=model_dir,
            load_format="dummy",
            max_model_len=4096,
            gpu_memory_utilization=0.5,
            max_num_seqs=256,
            max_num_batched_tokens=BATCHED_TOKENS,
            num_gpu_blocks_override=TOTAL_BLOCKS + 1,  # of which vLLM keeps one
        ),
        stat_loggers=[Watch],
    )
    await send(engine, poisson(seed=seed + 1_000, rate=rate, duration_s=WARM_UP_S))
    Watch.preemptions, Watch.highest_kv_use = 0, 0.0
    trace = poisson(seed=seed, rate=rate, duration_s=DURATION_S)
    answers = await send(engine, trace)
    figures = EngineFigures(preemptions=Watch.preemptions, highest_kv_use=Watch.highest_kv_use)
    result = score("bare engine", answers, window_s=trace.window_s, engine=figures)
    for line in json_lines([result], {"trace": trace.name}):
        print(line, flush=True)  # noqa: T201 - its output
    engine.shutdown()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 7))
