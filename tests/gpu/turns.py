"""The loads of side_by_side.sh, for whatever answers a prompt, in the turns that side_by_side.py calls.

Bursts are the experiment of ``tidegate bench``: equal requests, all of one at once. Of how many prompts the engine's
first step catches their median first token depends more than of all else. Under the steady load each client sends its
next request a moment after its answer has ended, and answers differ in length, so that arrivals are spread. Without the
moment arrivals would follow the engine's steps, at whose ends answers end: what is sent back in a millisecond is in the
next step, and what takes two waits for the one after it.

Not shared with the product on purpose: what it is held against is measured without it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from tests.gpu.answers import Answer, Read
from tests.gpu.process_times import ProcessTimes

_PROMPT_TOKENS, _OUTPUT_TOKENS = 512, 128
_LEAST_OUTPUT_TOKENS, _MOST_OUTPUT_TOKENS = 64, 192  # of the steady load, 128 on average
_FIRST_ORDINARY_TOKEN, _VOCABULARY_SIZE = 100, 128_256
# Of the steady load: a single client's answers are few, and hundreds of clients' many.
_LEAST_COUNTED, _MOST_COUNTED = 24, 600
_ANSWERS_OF_A_CLIENT = 8
_MEAN_PAUSE_S = 0.02  # two or three of the engine's steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """``number`` says which prompts: the same for all that take the turn."""

    load: str  # "bursts" or "steady"
    clients: int
    number: int


async def take_turns(path: str, read: Read, processes: ProcessTimes) -> None:
    """Warm ``read`` up, say so, and for each ``Turn`` that comes as a line of JSON on standard input print its figures.

    ``cpu_s`` is the CPU time that each process took for it, what is not counted of a steady load included.
    """
    read = _whole(read)
    rng = random.Random(f"to warm {path} up")
    await asyncio.gather(*(read(_prompt(rng), _OUTPUT_TOKENS) for _ in range(2)))
    print(json.dumps({"path": path, "ready": True}), flush=True)  # noqa: T201 - its output
    while line := await asyncio.to_thread(sys.stdin.readline):
        turn = Turn(**json.loads(line))
        cpu_before_s = processes.seconds()
        figures = await (_steady if turn.load == "steady" else _burst)(read, turn)
        row = {"path": path, "clients": turn.clients, "turn": turn.number, **figures}
        print(json.dumps(row | {"cpu_s": processes.since(cpu_before_s)}), flush=True)  # noqa: T201 - its output


async def _burst(read: Read, turn: Turn) -> dict[str, Any]:
    rng = random.Random(f"{turn}")
    burst = [_prompt(rng) for _ in range(turn.clients)]
    started_at = time.monotonic()
    answers = await asyncio.gather(*(read(ids, _OUTPUT_TOKENS) for ids in burst))
    wall_s = time.monotonic() - started_at
    gaps_s = [gap_s for answer in answers for gap_s in answer.gaps_s()]
    return _figures(answers, gaps_s, tokens=len(answers) * _OUTPUT_TOKENS, wall_s=wall_s)


async def _steady(read: Read, turn: Turn) -> dict[str, Any]:
    """Counted from the time each client has answered once on average, to the last request's sending.

    All clients are busy as long, or pause. What is sent then is counted for its first token, and what comes then for
    the rest.
    """
    left = iter(steady_requests(turn))
    answers: list[Answer] = []

    async def client() -> None:
        for request in left:
            answers.append(await read(request.ids, request.output_tokens))
            await asyncio.sleep(request.pause_s)

    await asyncio.gather(*(client() for _ in range(turn.clients)))
    answers.sort(key=lambda answer: answer.sent_at)
    counted = answers[2 * turn.clients :]
    opened_at, closed_at = counted[0].sent_at, counted[-1].sent_at
    gaps_s = [gap_s for answer in answers for gap_s in answer.gaps_s(opened_at, closed_at)]
    tokens = sum(answer.tokens(opened_at, closed_at) for answer in answers)
    return _figures(counted, gaps_s, tokens=tokens, wall_s=closed_at - opened_at)


def _figures(answers: list[Answer], gaps_s: list[float], *, tokens: int, wall_s: float) -> dict[str, Any]:
    return {
        "ttfts_ms": [round(1e3 * answer.ttft_s, 2) for answer in answers],
        "engine_ms": [round(1e3 * answer.engine_s, 2) for answer in answers if answer.engine_s is not None],
        "itl_p50_ms": 1e3 * median(gaps_s),
        "itl_mean_ms": 1e3 * fmean(gaps_s),
        "tokens": tokens,
        "wall_s": wall_s,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """``pause_s`` passes after its answer."""

    ids: list[int]
    output_tokens: int
    pause_s: float


def steady_requests(turn: Turn) -> list[Request]:
    """Prompts, none like another, and how many tokens to answer; the same for every path.

    All clients begin at once. Their first answers are of all lengths, the earliest sent the shortest, as if each
    client were found at another place of its answer.
    """
    rng = random.Random(f"{turn}")
    counted = min(max(_ANSWERS_OF_A_CLIENT * turn.clients, _LEAST_COUNTED), _MOST_COUNTED)

    def output_tokens() -> Iterator[int]:
        for client in range(turn.clients):
            yield 2 + client * (_OUTPUT_TOKENS - 2) // turn.clients
        for _ in range(turn.clients + counted):
            yield rng.randint(_LEAST_OUTPUT_TOKENS, _MOST_OUTPUT_TOKENS)

    return [
        Request(ids=_prompt(rng), output_tokens=tokens, pause_s=rng.expovariate(1 / _MEAN_PAUSE_S))
        for tokens in output_tokens()
    ]


def _whole(read: Read) -> Read:
    async def read_whole(ids: list[int], output_tokens: int) -> Answer:
        answer = await read(ids, output_tokens)
        if (received := answer.tokens()) != output_tokens:
            raise ValueError(f"{received} tokens came instead of {output_tokens}")
        return answer

    return read_whole


def _prompt(rng: random.Random) -> list[int]:
    return [rng.randrange(_FIRST_ORDINARY_TOKEN, _VOCABULARY_SIZE) for _ in range(_PROMPT_TOKENS)]
