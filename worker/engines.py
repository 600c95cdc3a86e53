"""Builds the engine that the settings ask for. Each engine is imported only where it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from worker.checkpoint import Checkpoint
from worker.config import WorkerSettings
from worker.engine import Engine

EngineFactory = Callable[[WorkerSettings, Checkpoint], Engine]


def build_engine(settings: WorkerSettings, checkpoint: Checkpoint) -> Engine:
    """The engine, not started. Raises ``ValueError`` where the settings contradict one another."""
    return _vllm_engine(settings, checkpoint) if settings.engine == "vllm" else _sim_engine(settings, checkpoint)


def _vllm_engine(settings: WorkerSettings, checkpoint: Checkpoint) -> Engine:
    # vLLM is not installed everywhere, and takes seconds to load.
    try:
        from worker.vllm_engine import VllmEngine  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(f"vLLM cannot be loaded: {error}") from error
    from worker.vllm_settings import VllmSettings  # noqa: PLC0415

    choices: dict[str, Any] = {"max_running_requests": settings.max_running_requests}  # without a None of its own
    return VllmEngine(
        VllmSettings(
            model_dir=checkpoint.directory,
            context_length=settings.context_length,
            max_batched_tokens=settings.max_batched_tokens,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            kv_cache_bytes=settings.kv_cache_bytes,
            kv_block_count=settings.kv_block_count,
            tensor_parallel_size=settings.tensor_parallel_size,
            pipeline_parallel_size=settings.pipeline_parallel_size,
            distributed_executor_backend=settings.distributed_executor_backend,
            dtype=settings.dtype,
            load_format=settings.load_format,
            is_eager=settings.eager,
            engine_seed=settings.engine_seed,
            **{name: value for name, value in choices.items() if value is not None},
        )
    )


def _sim_engine(settings: WorkerSettings, checkpoint: Checkpoint) -> Engine:
    from worker.sim_engine import SimEngine  # noqa: PLC0415
    from worker.sim_fault import SimFault  # noqa: PLC0415
    from worker.sim_language import SimLanguage  # noqa: PLC0415
    from worker.sim_profile import load_profile  # noqa: PLC0415

    choices: dict[str, Any] = {
        "context_length": settings.context_length,
        "max_running_requests": settings.max_running_requests,
        "max_batched_tokens": settings.max_batched_tokens,
        "total_blocks": settings.kv_block_count,
    }
    profile = replace(
        load_profile(settings.profile), **{name: value for name, value in choices.items() if value is not None}
    )
    language = SimLanguage(
        checkpoint.tokenizer_json, seed=settings.engine_seed, mean_output_tokens=settings.sim_mean_output_tokens
    )
    fault = None
    if settings.sim_fault_text:
        fault = SimFault(settings.sim_fault_text, settings.sim_fault, settings.sim_fault_after_tokens)
    return SimEngine(profile, language, time_scale=settings.sim_time_scale, fault=fault)
