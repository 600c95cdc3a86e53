"""The processes in front of vLLM's engine, with ``ReplayedCore`` in its place; see ``bench.worker_cost``.

``bare`` is AsyncLLM with one task per stream that drops what it gets. ``worker`` is the worker with its HTTP/2 edge,
which writes every token to a socket that another process reads. From the decoding of a step on, it is code that serves.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvloop
from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import async_llm
from vllm.v1.engine.async_llm import AsyncLLM

from bench.worker_cost.replayed_core import ReplayedCore
from bench.worker_cost.streams import prompt, read_streams
from worker.app import Worker
from worker.checkpoint import open_checkpoint
from worker.config import WorkerSettings


def main(subject: str, model_dir: Path, streams: int, tokens: int) -> None:
    """Run it, and print what it took."""
    cores: list[ReplayedCore] = []

    def make_core(vllm_config: Any, **_: Any) -> ReplayedCore:
        cores.append(ReplayedCore(vllm_config, streams=streams, steps=tokens))
        return cores[0]

    async_llm.EngineCoreClient.make_async_mp_client = staticmethod(make_core)
    uvloop.run({"bare": _bare, "worker": _worker}[subject](model_dir, streams, tokens))
    print(json.dumps({"path": subject, "streams": streams, "cpu_us_per_token": round(cores[0].cpu_us_per_token, 2)}))


async def _bare(model_dir: Path, streams: int, tokens: int) -> None:
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=str(model_dir), max_num_seqs=streams))
    params = SamplingParams(max_tokens=tokens, min_tokens=tokens, output_kind=RequestOutputKind.DELTA)

    async def read(number: int) -> None:
        async for _ in engine.generate({"prompt_token_ids": prompt(number)}, params, str(number)):
            pass

    await asyncio.gather(*map(read, range(streams)))
    engine.shutdown()


async def _worker(model_dir: Path, streams: int, tokens: int) -> None:
    settings = WorkerSettings(
        engine="vllm",
        model_dir=model_dir,
        listen="127.0.0.1:0",
        admin_listen="127.0.0.1:0",
        max_running_requests=streams,
        max_prefill_backlog_s=1e6,  # no prompt takes any time here
        prefetch_share=0.0,
    )
    serving = Worker(settings)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serving.run())
        await serving.ready.wait()
        checkpoint_sha256 = open_checkpoint(model_dir).checkpoint_sha256
        await read_streams(serving.address, streams=streams, tokens=tokens, checkpoint_sha256=checkpoint_sha256)
        serving.stop()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
