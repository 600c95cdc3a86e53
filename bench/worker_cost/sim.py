"""The worker with ``sim``: CPU outside the engine, and how late its tokens are; see ``bench.worker_cost``.

The engine alone, whose outputs nobody reads, is measured first; what the worker takes beyond it is its own. A token is
late by the time from the end of the engine's step to its arrival in the process that reads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import uvloop

import worker
from bench.worker_cost.streams import Arrivals, prompt, read_streams
from worker.app import Worker
from worker.checkpoint import Checkpoint, open_checkpoint
from worker.config import WorkerSettings
from worker.engine import EngineOutput, GenerationJob, Sampling, TakeOutput, Wait
from worker.sim_engine import SimEngine
from worker.sim_language import SimLanguage
from worker.sim_profile import load_profile

_CHECKPOINT = open_checkpoint(Path(worker.__file__).parent / "sim_model")
_EDGE_TOKENS = 5


class TimedEngine(SimEngine):
    """Notes when it has made each token, and the CPU time while all streams flow."""

    def __init__(self, streams: int, tokens: int) -> None:
        language = SimLanguage(_CHECKPOINT.tokenizer_json, seed=0, mean_output_tokens=None)
        super().__init__(load_profile("h200-llama3-8b-awq"), language)
        self.made_at: dict[tuple[int, ...], list[float]] = defaultdict(list)
        self.cpu_s = self.wall_s = 0.0
        self._stream_count, self._token_count = streams, tokens
        self._first_name, self._last_name = _name(0), _name(streams - 1)
        self._begun: tuple[float, float] | None = None

    async def generate(self, job: GenerationJob, take: TakeOutput) -> None:
        """See ``SimEngine.generate``."""
        made_at = self.made_at[tuple(job.prompt_token_ids[:2])]

        def timed(output: EngineOutput) -> Wait | None:
            made_at.append(time.monotonic())
            self._note()
            return take(output)

        await super().generate(job, timed)

    def _note(self) -> None:
        # Streams begin and end one after the other, and their tokens come in step.
        if len(self.made_at) < self._stream_count:
            return
        made = self.made_at[self._last_name]
        now = time.process_time(), time.monotonic()
        if self._begun is None and len(made) == _EDGE_TOKENS:
            self._begun = now
        first = len(self.made_at[self._first_name])
        if self._begun is not None and first <= self._token_count - _EDGE_TOKENS:
            self.cpu_s, self.wall_s = now[0] - self._begun[0], now[1] - self._begun[1]

    @property
    def cores(self) -> float:
        """CPU time of the whole process for each second in which all streams flowed."""
        return self.cpu_s / self.wall_s


def _name(number: int) -> tuple[int, ...]:
    return tuple(prompt(number)[:2])


def main(streams: int, tokens: int) -> None:
    """Run both, and print what they took."""
    alone = uvloop.run(_engine_alone(streams, tokens))
    engine, arrivals = uvloop.run(_worker(streams, tokens))
    late = sorted(
        arrived - made
        for number, arrived_at in enumerate(arrivals)
        for made, arrived in zip(engine.made_at[_name(number)], arrived_at, strict=True)
    )
    row = {
        "streams": streams,
        "tokens_per_s_of_each": round(_pace(engine.made_at[_name(streams - 1)]), 1),
        "cores": round(engine.cores, 3),
        "cores_of_the_engine_alone": round(alone.cores, 3),
        "cores_outside_the_engine": round(engine.cores - alone.cores, 3),
        "late_p50_ms": round(1e3 * late[len(late) // 2], 2),
        "late_p99_ms": round(1e3 * late[len(late) * 99 // 100], 2),
        "late_max_ms": round(1e3 * late[-1], 2),
    }
    print(json.dumps(row))


def _pace(made_at: list[float]) -> float:
    return (len(made_at) - 1) / (made_at[-1] - made_at[0])


async def _engine_alone(streams: int, tokens: int) -> TimedEngine:
    engine = TimedEngine(streams, tokens)
    await engine.start()

    async def run(number: int) -> None:
        sampling = Sampling(max_output_tokens=tokens, min_output_tokens=tokens)
        job = GenerationJob(job_id=str(number), prompt_token_ids=prompt(number), sampling=sampling)
        await engine.generate(job, lambda _: None)

    await asyncio.gather(*map(run, range(streams)))
    await engine.stop()
    return engine


async def _worker(streams: int, tokens: int) -> tuple[TimedEngine, Arrivals]:
    engine = TimedEngine(streams, tokens)

    def make_engine(_: WorkerSettings, __: Checkpoint) -> TimedEngine:
        return engine

    settings = WorkerSettings(
        engine="sim",
        listen="127.0.0.1:0",
        admin_listen="127.0.0.1:0",
        max_prefill_backlog_s=1e3,  # all streams come at once
        prefetch_share=0.0,
    )
    serving = Worker(settings, engine_factory=make_engine)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serving.run())
        await serving.ready.wait()
        engine.made_at.clear()  # of the warm-up
        arrivals = await read_streams(
            serving.address, streams=streams, tokens=tokens, checkpoint_sha256=_CHECKPOINT.checkpoint_sha256
        )
        serving.stop()
    return engine, arrivals


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
