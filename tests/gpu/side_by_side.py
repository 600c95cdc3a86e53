"""Call the turns of side_by_side.sh, and make its table: what gateway and worker take and give beside the bare engine.

python tests/gpu/side_by_side.py OUT_DIR bursts|steady 1,32,128,256 SECONDS -- COMMAND ... -- COMMAND ... -- COMMAND ...
python tests/gpu/side_by_side.py --table OUT_DIR

Each command is a path that takes turns (tests/gpu/turns.py); the first is what the others are held against. All stand
at once, and one of them is busy: they meet the same machine, warm alike, with the same prompts, and what a turn owes to
chance the many turns of each share out. Sizes go round until the time is over, the paths in every order. What they
print is kept in OUT_DIR/turns.jsonl.

Intervals are 95 % of a bootstrap over rounds, each of which has a turn of every path. They tell what differs between
rounds, and nothing of what differs between two starts of one engine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tests.gpu.turns import Turn

_RESAMPLES = 1_000
_LONGEST_LINE = 1 << 22  # bytes
# Small bursts are over soon, and more of them take no more time.
_BURSTS_OF_A_CYCLE = {1: 8, 32: 4, 128: 2}
# vLLM schedules a step ahead, which runs when the last answer is out. It is not to stand in the next path's way.
_BREATH_S = 0.1
_LONGEST_END_S = 20.0

Row = dict[str, Any]  # as tests/gpu/turns.py prints it
Round = Sequence[Row]  # a turn of every path, in the order of the commands


async def call_turns(out: Path, load: str, sizes: Sequence[int], seconds: float, commands: list[list[str]]) -> None:
    """Start the paths, and call turns for ``seconds`` after the last of them is ready."""
    paths = [
        await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE)
        for command in commands
    ]
    try:
        await asyncio.gather(*map(_row, paths))
        over_at = time.monotonic() + seconds
        with (out / "turns.jsonl").open("w", encoding="utf-8") as file:
            for turn, order in _turns(load, sizes, len(paths)):
                if time.monotonic() >= over_at:
                    break
                for index in order:
                    await asyncio.sleep(_BREATH_S)
                    row = await _taken(paths[index], turn)
                    file.write(json.dumps({"at": index, **row}) + "\n")
                file.flush()
    finally:
        await asyncio.gather(*map(_end, paths))


def _turns(load: str, sizes: Sequence[int], paths: int) -> Iterator[tuple[Turn, Sequence[int]]]:
    orders = dict.fromkeys(sizes, 0)
    every_order = list(itertools.permutations(range(paths)))
    while True:
        for size in sizes:
            for _ in range(_BURSTS_OF_A_CYCLE.get(size, 1) if load == "bursts" else 1):
                number = orders[size]
                orders[size] += 1
                yield Turn(load=load, clients=size, number=number), every_order[number % len(every_order)]


async def _taken(path: Process, turn: Turn) -> Row:
    assert path.stdin is not None
    path.stdin.write(json.dumps(asdict(turn)).encode() + b"\n")
    await path.stdin.drain()
    return await _row(path)


async def _end(path: Process) -> None:
    assert path.stdin is not None
    path.stdin.close()
    try:
        async with asyncio.timeout(_LONGEST_END_S):
            await path.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            path.kill()


async def _row(path: Process) -> Row:
    """Its next one; an engine may log between them."""
    assert path.stdout is not None
    while line := await path.stdout.readline():
        if line.startswith(b"{"):
            row: Row = json.loads(line)
            return row
    raise EOFError("a path has ended before its turn was over")


def table(out: Path) -> Iterator[str]:
    """Its lines, in Markdown."""
    rows: list[Row] = [json.loads(line) for line in (out / "turns.jsonl").read_text().splitlines()]
    for row in rows:
        row["ttfts_ms"] = np.asarray(row["ttfts_ms"])
    yield (
        "| clients | rounds | path | TTFT p50 ms | mean ms | p99 ms | ITL p50 ms | tok/s | TTFT p50 over bare ms"
        " | mean over bare ms | ITL of bare | tok/s of bare | tok/s over the last path | CPU s by process |"
    )
    yield "|---" * 14 + "|"
    for size in sorted({row["clients"] for row in rows}):
        by_turn: dict[int, dict[int, Row]] = {}
        for row in rows:
            if row["clients"] == size:
                by_turn.setdefault(row["turn"], {})[row["at"]] = row
        paths = range(1 + max(row["at"] for row in rows))
        rounds: list[Round] = [[turn[at] for at in paths] for turn in by_turn.values() if len(turn) == len(paths)]
        for at in paths:
            yield f"| {size} | {len(rounds)} | {rounds[0][at]['path']} | {' | '.join(_cells(rounds, at, paths[-1]))} |"


def _cells(rounds: Sequence[Round], at: int, last: int) -> Iterator[str]:
    ttfts_ms = _ttfts_ms(rounds, at)
    yield f"{np.median(ttfts_ms):.1f}"
    yield f"{np.mean(ttfts_ms):.1f}"
    yield f"{np.percentile(ttfts_ms, 99):.1f}"
    yield f"{_itl_ms(rounds, at):.2f}"
    yield f"{_tokens_per_s(rounds, at):.0f}"
    for figure, style in (
        (lambda rounds: np.median(_ttfts_ms(rounds, at)) - np.median(_ttfts_ms(rounds, 0)), "+.1f"),
        (lambda rounds: np.mean(_ttfts_ms(rounds, at)) - np.mean(_ttfts_ms(rounds, 0)), "+.1f"),
        (lambda rounds: _itl_ms(rounds, at) / _itl_ms(rounds, 0), ".3f"),
        (lambda rounds: _tokens_per_s(rounds, at) / _tokens_per_s(rounds, 0), ".3f"),
    ):
        yield _with_interval(rounds, figure, style) if at else ""
    yield (
        _with_interval(rounds, lambda rounds: _tokens_per_s(rounds, at) / _tokens_per_s(rounds, last), ".3f")
        if at != last
        else ""
    )
    names = rounds[0][at]["cpu_s"]
    yield ", ".join(f"{name} {sum(turns[at]['cpu_s'].get(name, 0.0) for turns in rounds):.1f}" for name in names)


def _ttfts_ms(rounds: Sequence[Round], at: int) -> np.ndarray:
    return np.concatenate([turns[at]["ttfts_ms"] for turns in rounds])


def _itl_ms(rounds: Sequence[Round], at: int) -> float:
    return float(np.median([turns[at]["itl_p50_ms"] for turns in rounds]))


def _tokens_per_s(rounds: Sequence[Round], at: int) -> float:
    return float(sum(turns[at]["tokens"] for turns in rounds) / sum(turns[at]["wall_s"] for turns in rounds))


def _with_interval(rounds: Sequence[Round], figure: Callable[[Sequence[Round]], float], style: str) -> str:
    rng = random.Random(0)
    drawn = sorted(figure(rng.choices(rounds, k=len(rounds))) for _ in range(_RESAMPLES))
    low, high = drawn[_RESAMPLES // 40], drawn[-_RESAMPLES // 40]
    return f"{figure(rounds):{style}} ({low:{style}} to {high:{style}})"


def main(arguments: list[str]) -> None:
    """Either of the two."""
    if arguments[0] == "--table":
        out = Path(arguments[1])
    else:
        settings, *commands = [
            list(words) for is_mark, words in itertools.groupby(arguments, "--".__eq__) if not is_mark
        ]
        out, load, sizes, seconds = Path(settings[0]), settings[1], settings[2], float(settings[3])
        if load not in {"bursts", "steady"}:
            raise ValueError(f"{load} is neither bursts nor steady")
        asyncio.run(call_turns(out, load, [int(size) for size in sizes.split(",")], seconds, commands))
    for line in table(out):
        print(line)  # noqa: T201 - its output


if __name__ == "__main__":
    main(sys.argv[1:])
