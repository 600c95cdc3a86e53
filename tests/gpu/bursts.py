"""The experiment of ``tidegate bench``, for whatever answers a prompt: bursts of equal requests, all of one at once.

Not shared with the product on purpose: what it is held against is measured without it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence

PROMPT_TOKENS, OUTPUT_TOKENS = 512, 128
_FIRST_ORDINARY_TOKEN, _VOCABULARY_SIZE = 100, 128_256

# Sends a prompt, reads the answer to its end, and returns TTFT and median ITL in seconds.
Read = Callable[[list[int]], Awaitable[tuple[float, float]]]


async def measure(path: str, read: Read, *, bursts: Sequence[int], rounds: int) -> None:
    """Warm ``read`` up, then print one JSON object per burst, with the names that ``tidegate bench --json`` uses."""
    rng = random.Random(0)

    async def burst(concurrency: int) -> list[tuple[float, float]]:
        prompts = [
            [rng.randrange(_FIRST_ORDINARY_TOKEN, _VOCABULARY_SIZE) for _ in range(PROMPT_TOKENS)]
            for _ in range(concurrency)
        ]
        return await asyncio.gather(*map(read, prompts))

    await burst(2)
    for concurrency in bursts:
        started_at, results = time.monotonic(), []
        for _ in range(rounds):
            results += await burst(concurrency)
        wall_s = time.monotonic() - started_at
        row = {
            "path": path,
            "concurrency": concurrency,
            "finished": len(results),
            "ttft_p50_ms": 1e3 * _percentile([ttft for ttft, _ in results], 0.5),
            "ttft_p99_ms": 1e3 * _percentile([ttft for ttft, _ in results], 0.99),
            "itl_p50_ms": 1e3 * _percentile([itl for _, itl in results], 0.5),
            "tokens_per_s": len(results) * OUTPUT_TOKENS / wall_s,
        }
        print(json.dumps(row), flush=True)  # noqa: T201 - its output


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
