"""The bursts of ``tidegate bench`` against ``vllm serve``, streamed over HTTP: the front end that the engine brings.

python tests/gpu/http_serve.py URL SERVER_PID MODEL 1,32,128,256 ROUNDS

One JSON object per burst.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from statistics import median

import aiohttp
import uvloop

from tests.gpu.bursts import OUTPUT_TOKENS, Reading, measure
from tests.gpu.process_times import ProcessTimes

_START_LIMIT_S = 240.0
_EVENT = b"data: {"


async def until_ready(session: aiohttp.ClientSession, url: str) -> None:
    """Wait for the server. Raises ``TimeoutError``."""
    async with asyncio.timeout(_START_LIMIT_S):
        while True:
            try:
                async with session.get(f"{url}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(1.0)


async def main(url: str, server_pid: int, model: str, bursts: list[int], rounds: int) -> None:
    """Wait for the server and print a row per burst."""
    options = {
        "model": model,
        "max_tokens": OUTPUT_TOKENS,
        "min_tokens": OUTPUT_TOKENS,
        "temperature": 1.0,
        "stream": True,
        "return_token_ids": True,  # a chunk may hold several tokens
    }
    unlimited = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=unlimited, timeout=aiohttp.ClientTimeout(total=600)) as session:
        await until_ready(session, url)

        async def read(ids: list[int]) -> Reading:
            sent_at, last_at, ttft_s, gaps_s, received = time.monotonic(), 0.0, None, [], 0
            async with session.post(f"{url}/v1/completions", json={**options, "prompt": ids}) as response:
                response.raise_for_status()
                async for line in response.content:
                    tokens = _tokens(line)
                    if not tokens:
                        continue
                    now = time.monotonic()
                    received += tokens
                    if ttft_s is None:
                        ttft_s = now - sent_at
                    else:
                        gaps_s += [(now - last_at) / tokens] * tokens
                    last_at = now
            if ttft_s is None or received != OUTPUT_TOKENS:
                raise ValueError(f"{received} tokens came instead of {OUTPUT_TOKENS}")
            return Reading(ttft_s=ttft_s, itl_s=median(gaps_s))

        processes = ProcessTimes({"server": server_pid, "client": os.getpid()})
        await measure("vllm serve", read, bursts=bursts, rounds=rounds, processes=processes)


def _tokens(line: bytes) -> int:
    """How many tokens a line of the event stream brings."""
    if not line.startswith(_EVENT):
        return 0
    choices = json.loads(line[len(_EVENT) - 1 :])["choices"]
    return len(choices[0].get("token_ids") or ()) if choices else 0


if __name__ == "__main__":
    url, pid, model, bursts, rounds = sys.argv[1:]
    uvloop.run(main(url, int(pid), model, [int(size) for size in bursts.split(",")], int(rounds)))
