"""The two loads of side_by_side.sh, for whatever answers a prompt. One JSON object per size, on standard output.

Bursts are the experiment of ``tidegate bench``: equal requests, all of one at once, and again when the last has ended.
Of how many prompts the engine's first step catches their median first token depends more than of all else. Under the
steady load each client sends its next request a moment after its answer has ended, and answers differ in length, so
that arrivals are spread. Without the moment arrivals would follow the engine's steps, at whose ends answers end: what
is sent back in a millisecond is in the next step, and what takes two waits for the one after it.

Not shared with the product on purpose: what it is held against is measured without it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.gpu.answers import Answer, Read, latency_figures, percentile
from tests.gpu.process_times import ProcessTimes

_PROMPT_TOKENS, _OUTPUT_TOKENS = 512, 128
_LEAST_OUTPUT_TOKENS, _MOST_OUTPUT_TOKENS = 64, 192  # of the steady load, 128 on average
_FIRST_ORDINARY_TOKEN, _VOCABULARY_SIZE = 100, 128_256
# Small bursts are over soon. Which step of the engine a request gets into is chance, and its median needs more of them.
_SMALL, _MORE_ROUNDS = 32, 4
# A single client's answers are few, and hundreds of clients' many.
_LEAST_CLIENTS_COUNTED, _MOST_ANSWERS_COUNTED = 3, 1_200
_MEAN_PAUSE_S = 0.02  # two or three of the engine's steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """``rounds`` are the bursts of a size, four times as many of small ones; or each client's answers that count."""

    is_steady: bool
    sizes: tuple[int, ...]
    rounds: int

    @classmethod
    def parse(cls, kind: str, sizes: str, rounds: str) -> Load:
        """From the words of a command line, such as ``steady 1,32 11``."""
        if kind not in {"steady", "bursts"}:
            raise ValueError(f"{kind} is neither steady nor bursts")
        return cls(is_steady=kind == "steady", sizes=tuple(map(int, sizes.split(","))), rounds=int(rounds))


async def measure(path: str, read: Read, load: Load, processes: ProcessTimes) -> None:
    """Warm ``read`` up, then put ``load`` on it, one size after the other.

    ``cpu_s`` is the CPU time that each process took for a size, what is not counted of a steady load included.
    """
    run = _steady if load.is_steady else _bursts
    read = _whole(read)
    rng = random.Random("to warm up")
    await asyncio.gather(*(read(_prompt(rng), _OUTPUT_TOKENS) for _ in range(2)))
    for concurrency in load.sizes:
        cpu_before_s = processes.seconds()
        figures = await run(read, concurrency, load.rounds)
        row = {"path": path, "concurrency": concurrency, **figures, "cpu_s": processes.since(cpu_before_s)}
        print(json.dumps(row), flush=True)  # noqa: T201 - its output


async def _bursts(read: Read, concurrency: int, rounds: int) -> dict[str, Any]:
    rng = random.Random(concurrency)
    wall_s, answers = 0.0, []
    for _ in range(rounds if concurrency > _SMALL else rounds * _MORE_ROUNDS):
        burst = [_prompt(rng) for _ in range(concurrency)]
        started_at = time.monotonic()
        answers += await asyncio.gather(*(read(ids, _OUTPUT_TOKENS) for ids in burst))
        wall_s += time.monotonic() - started_at
    return {
        "finished": len(answers),
        **latency_figures(answers),
        "itl_p50_ms": 1e3 * percentile([median(answer.gaps_s()) for answer in answers], 0.5),
        "tokens_per_s": len(answers) * _OUTPUT_TOKENS / wall_s,
        "wall_s": wall_s,
        # Of each burst. They come in groups: one for each step of the engine in which prompts ended.
        "ttfts_ms": [
            Counter(round(1e3 * answer.ttft_s) for answer in sorted(burst, key=lambda answer: answer.ttft_s))
            for burst in (answers[at : at + concurrency] for at in range(0, len(answers), concurrency))
        ],
    }


async def _steady(read: Read, concurrency: int, rounds: int) -> dict[str, Any]:
    """Counted from the time each client has answered once on average, to the last request's sending.

    All clients are busy as long, or pause. What is sent then is counted for its first token, and what comes then for
    the rest.
    """
    requests = steady_requests(concurrency, rounds)
    left = iter(requests)
    answers: list[Answer] = []

    async def client() -> None:
        for request in left:
            answers.append(await read(request.ids, request.output_tokens))
            await asyncio.sleep(request.pause_s)

    await asyncio.gather(*(client() for _ in range(concurrency)))
    answers.sort(key=lambda answer: answer.sent_at)
    counted = answers[2 * concurrency :]
    opened_at, closed_at = counted[0].sent_at, counted[-1].sent_at
    gaps_s = [gap_s for answer in answers for gap_s in answer.gaps_s(opened_at, closed_at)]
    wall_s = closed_at - opened_at
    return {
        "finished": len(counted),
        **latency_figures(counted),
        "itl_p50_ms": 1e3 * percentile(gaps_s, 0.5),
        "itl_mean_ms": 1e3 * sum(gaps_s) / len(gaps_s),
        "tokens_per_s": sum(answer.tokens(opened_at, closed_at) for answer in answers) / wall_s,
        "wall_s": wall_s,
        "ttfts_in_turn_ms": [round(1e3 * answer.ttft_s, 2) for answer in counted],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """``pause_s`` passes after its answer."""

    ids: list[int]
    output_tokens: int
    pause_s: float


def steady_requests(concurrency: int, rounds: int) -> list[Request]:
    """Prompts, none like another, and how many tokens to answer; the same for every path.

    All clients begin at once. Their first answers are of all lengths, the earliest sent the shortest, as if each
    client were found at another place of its answer.
    """
    rng = random.Random(concurrency)
    rounds = rounds if concurrency > _SMALL else 2 * rounds
    counted = min(rounds * max(concurrency, _LEAST_CLIENTS_COUNTED), _MOST_ANSWERS_COUNTED)

    def output_tokens() -> Iterator[int]:
        for client in range(concurrency):
            yield 2 + client * (_OUTPUT_TOKENS - 2) // concurrency
        for _ in range(concurrency + counted):
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
