"""The turns of tests/gpu/turns.py on ``vllm serve``, streamed over HTTP: the front end that the engine brings.

python tests/gpu/http_serve.py URL SERVER_PID MODEL
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
from tests.gpu.process_times import ProcessTimes
from tests.gpu.turns import take_turns

_START_LIMIT_S = 300.0
_LONGEST_PAUSE_S = 600.0  # between its turns, in which others have theirs
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


async def main(url: str, server_pid: int, model: str) -> None:
    """Wait for the server and take turns."""
    options = {
        "model": model,
        "temperature": 1.0,
        "stream": True,
        "return_token_ids": True,  # a chunk may hold several tokens
    }
    unlimited = aiohttp.TCPConnector(limit=0, keepalive_timeout=_LONGEST_PAUSE_S)
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
        await take_turns("vllm serve", read, processes)


def _tokens(line: bytes) -> int:
    """How many tokens a line of the event stream brings."""
    if not line.startswith(_EVENT):
        return 0
    choices = json.loads(line[len(_EVENT) - 1 :])["choices"]
    return len(choices[0].get("token_ids") or ()) if choices else 0


if __name__ == "__main__":
    url, pid, model = sys.argv[1:]
    uvloop.run(main(url, int(pid), model))
