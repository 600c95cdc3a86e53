"""A real worker with the real vLLM engine and the default model, and no fake in it: shared by a whole test session."""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from tests.fakes.engine_outputs import engine_outputs
from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_worker import RunningWorker, running_worker
from tidegate.client.stack import state_dir
from worker.config import WorkerSettings
from worker.default_model import prepare_default_model
from worker.engine import Constraint, Engine, EngineFacts, EngineFinish, EngineOutput, GenerationJob, Sampling
from worker.model import ServedModel

# Small, so that 32 long requests do not fit and vLLM has to preempt: 48 blocks of 128 tokens.
CONTEXT_LENGTH, KV_BLOCKS, RUNNING_REQUESTS = 2048, 49, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole generation."""

    outputs: list[EngineOutput]
    finish: EngineFinish

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.outputs)

    @property
    def token_ids(self) -> list[int]:
        return [token_id for output in self.outputs for token_id in output.token_ids]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealVllm:
    """The worker, and its engine for tests that go past the worker's checks."""

    worker: RunningWorker
    model: ServedModel
    tokenizer: Tokenizer
    _job_ids: Any = field(default_factory=itertools.count)

    @property
    def engine(self) -> Engine:
        return self.model.engine

    @property
    def facts(self) -> EngineFacts:
        return self.model.facts

    def chat(self, text: str) -> list[int]:
        """The token ids of one user turn."""
        prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        return list(self.tokenizer.encode(prompt, add_special_tokens=False).ids)

    def job(
        self,
        prompt: list[int],
        *,
        constraint: Constraint | None = None,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        **sampling: Any,
    ) -> GenerationJob:
        """A job; ``sampling`` goes over greedy sampling of 16 tokens."""
        return GenerationJob(
            job_id=f"test-{next(self._job_ids)}",
            prompt_token_ids=prompt,
            sampling=Sampling(**{"max_output_tokens": 16, "temperature": 0.0} | sampling),
            constraint=constraint,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
        )

    async def answer(self, job: GenerationJob) -> Answer:
        """Run ``job`` to its end, past the worker's ledger."""
        outputs = [output async for output in engine_outputs(self.engine, job)]
        assert outputs[-1].finish is not None
        return Answer(outputs=outputs, finish=outputs[-1].finish)

    async def until_idle(self) -> None:
        """Wait until no request holds a block."""
        async with asyncio.timeout(PATIENCE_S):
            # The engine's one step callback is the worker's.
            while self.engine.load().free_blocks != self.facts.total_blocks:  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def is_well(self) -> bool:
        """Whether the engine still answers, and answers right."""
        answer = await self.answer(self.job(self.chat("What is the capital of France?")))
        return "Paris" in answer.text


@asynccontextmanager
async def real_vllm() -> AsyncIterator[RealVllm]:
    """Prepare the default model where that has not been done, start the worker, and end it afterwards."""
    model_dir = state_dir() / "models" / "smollm2-135m-instruct"
    settings = WorkerSettings(
        engine="vllm",
        model_dir=model_dir,
        listen="127.0.0.1:0",
        context_length=CONTEXT_LENGTH,
        max_running_requests=RUNNING_REQUESTS,
        kv_cache_bytes=1 << 29,
        kv_block_count=KV_BLOCKS,
        eager=True,
        drain_grace_s=5,
        stall_after_s=600,  # a step takes long on a busy machine
    )
    async with AsyncExitStack() as stack:
        with _warnings_of_others():
            await asyncio.to_thread(prepare_default_model, model_dir)
            worker = await stack.enter_async_context(running_worker(settings))
        model = worker.worker._model
        assert model is not None
        tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        yield RealVllm(worker=worker, model=model, tokenizer=tokenizer)
        with _warnings_of_others():
            await stack.aclose()


@contextmanager
def _warnings_of_others() -> Iterator[None]:
    """PyTorch, transformers and vLLM warn about one another while they load, and when they end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
