"""The experiment of ``tidegate bench``, for whatever answers a prompt: bursts of equal requests, all of one at once.

Not shared with the product on purpose: what it is held against is measured without it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.gpu.process_times import ProcessTimes

PROMPT_TOKENS, OUTPUT_TOKENS = 512, 128
_FIRST_ORDINARY_TOKEN, _VOCABULARY_SIZE = 100, 128_256
# Small bursts are over soon. Which step of the engine a request gets into is chance, and its median needs more of them.
_SMALL, _MORE_ROUNDS = 32, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One answer. ``engine_s`` is what of the time to the first token was spent in the engine, by its own clock."""

    ttft_s: float
    itl_s: float  # the median
    engine_s: float | None = None


# Sends a prompt and reads the answer to its end.
Read = Callable[[list[int]], Awaitable[Reading]]


async def measure(path: str, read: Read, *, bursts: Sequence[int], rounds: int, processes: ProcessTimes) -> None:
    """Warm ``read`` up, then print one JSON object per burst, with the names that ``tidegate bench --json`` uses.

    ``cpu_s`` is the CPU time that each process took for the bursts of a size.
    """
    rng = random.Random(0)

    def prompts(concurrency: int) -> list[list[int]]:
        return [
            [rng.randrange(_FIRST_ORDINARY_TOKEN, _VOCABULARY_SIZE) for _ in range(PROMPT_TOKENS)]
            for _ in range(concurrency)
        ]

    await asyncio.gather(*map(read, prompts(2)))
    for concurrency in bursts:
        wall_s, results = 0.0, []
        cpu_before_s = processes.seconds()
        for _ in range(rounds if concurrency > _SMALL else rounds * _MORE_ROUNDS):
            burst = prompts(concurrency)
            started_at = time.monotonic()
            results += await asyncio.gather(*map(read, burst))
            wall_s += time.monotonic() - started_at
        ttfts_s = [result.ttft_s for result in results]
        engine_s = [result.engine_s for result in results if result.engine_s is not None]
        outside_s = [result.ttft_s - result.engine_s for result in results if result.engine_s is not None]
        row = {
            "path": path,
            "concurrency": concurrency,
            "finished": len(results),
            "ttft_p50_ms": 1e3 * _percentile(ttfts_s, 0.5),
            "ttft_mean_ms": 1e3 * sum(ttfts_s) / len(ttfts_s),
            "ttft_p99_ms": 1e3 * _percentile(ttfts_s, 0.99),
            "ttft_in_engine_p50_ms": 1e3 * _percentile(engine_s, 0.5) if engine_s else None,
            "ttft_outside_p50_ms": 1e3 * _percentile(outside_s, 0.5) if outside_s else None,
            "ttft_outside_p99_ms": 1e3 * _percentile(outside_s, 0.99) if outside_s else None,
            "itl_p50_ms": 1e3 * _percentile([result.itl_s for result in results], 0.5),
            "tokens_per_s": len(results) * OUTPUT_TOKENS / wall_s,
            "wall_s": wall_s,
            "cpu_s": processes.since(cpu_before_s),
            # Of each burst. They come in groups: one for each step of the engine in which prompts ended.
            "ttfts_ms": [
                Counter(round(1e3 * ttft_s) for ttft_s in sorted(ttfts_s[at : at + concurrency]))
                for at in range(0, len(ttfts_s), concurrency)
            ],
        }
        print(json.dumps(row), flush=True)  # noqa: T201 - its output


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
