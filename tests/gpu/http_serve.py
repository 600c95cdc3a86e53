"""The loads of tests/gpu/loads.py on ``vllm serve``, streamed over HTTP: the front end that the engine brings.

python tests/gpu/http_serve.py URL SERVER_PID MODEL steady|bursts 1,32,128,256 ROUNDS

One JSON object per size.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import aiohttp
import uvloop

from tests.gpu.answers import Answer
from tests.gpu.loads import Load, measure
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


async def main(url: str, server_pid: int, model: str, load: Load) -> None:
    """Wait for the server and print a row per size."""
    options = {
        "model": model,
        "temperature": 1.0,
        "stream": True,
        "return_token_ids": True,  # a chunk may hold several tokens
    }
    unlimited = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=unlimited, timeout=aiohttp.ClientTimeout(total=600)) as session:
        await until_ready(session, url)

        async def read(ids: list[int], output_tokens: int) -> Answer:
            sent_at = time.monotonic()
            body = {**options, "max_tokens": output_tokens, "min_tokens": output_tokens, "prompt": ids}
            async with session.post(f"{url}/v1/completions", json=body) as response:
                response.raise_for_status()
                arrivals = [(time.monotonic(), tokens) async for line in response.content if (tokens := _tokens(line))]
            return Answer(sent_at=sent_at, arrivals=arrivals)

        processes = ProcessTimes({"server": server_pid, "client": os.getpid()})
        await measure("vllm serve", read, load, processes)


def _tokens(line: bytes) -> int:
    """How many tokens a line of the event stream brings."""
    if not line.startswith(_EVENT):
        return 0
    choices = json.loads(line[len(_EVENT) - 1 :])["choices"]
    return len(choices[0].get("token_ids") or ()) if choices else 0


if __name__ == "__main__":
    url, pid, model, load, sizes, rounds = sys.argv[1:]
    uvloop.run(main(url, int(pid), model, Load.parse(load, sizes, rounds)))
