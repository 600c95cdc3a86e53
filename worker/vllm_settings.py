"""How the vLLM engine is to run. Apart from the engine, so that reading a configuration does not import vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """Settings of one vLLM engine. None leaves the choice to vLLM, which takes it from the model and the hardware."""

    model_dir: Path
    context_length: int | None = None  # tokens; None: as long as the model's own
    max_running_requests: int = 256
    max_batched_tokens: int | None = None  # of prompts in one engine step; running requests' next tokens come on top
    gpu_memory_utilization: float = 0.9  # share of the GPU's memory for weights, activations and KV cache
    kv_cache_bytes: int | None = None  # instead of a share; needed on a CPU, where the share would be of all memory
    kv_block_count: int | None = None  # overrides what fits; for tests and benchmarks
    tensor_parallel_size: int = 1  # GPUs that share the model
    pipeline_parallel_size: int = 1  # groups of such GPUs, each with a share of the layers
    distributed_executor_backend: str | None = None  # "mp" or "ray"
    dtype: str = "auto"
    load_format: str = "auto"  # "dummy" gives random weights, for benchmarks
    is_eager: bool = False  # without compilation and CUDA graphs: starts faster, runs slower
    engine_seed: int = 0  # for requests without a seed of their own

    def __post_init__(self) -> None:
        if not 0.0 < self.gpu_memory_utilization <= 1.0:
            raise ValueError(f"gpu_memory_utilization must be in (0, 1], not {self.gpu_memory_utilization}")
        for name in ("max_running_requests", "tensor_parallel_size", "pipeline_parallel_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("context_length", "max_batched_tokens", "kv_cache_bytes", "kv_block_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


def engine_arguments(settings: VllmSettings, *, is_cpu: bool) -> dict[str, Any]:
    """The arguments of vLLM's ``AsyncEngineArgs``."""
    arguments: dict[str, Any] = {
        "model": str(settings.model_dir),
        "max_model_len": settings.context_length,
        "max_num_seqs": settings.max_running_requests,
        "max_num_batched_tokens": settings.max_batched_tokens,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "kv_cache_memory_bytes": settings.kv_cache_bytes,
        "num_gpu_blocks_override": settings.kv_block_count,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        "distributed_executor_backend": settings.distributed_executor_backend,
        "dtype": settings.dtype,
        "load_format": settings.load_format,
        "enforce_eager": settings.is_eager,
        "seed": settings.engine_seed,
        "trust_remote_code": False,
        "enable_log_requests": False,
        "use_tqdm_on_load": False,
        "disable_log_stats": True,  # ours stand in for the default ones
        # One backend for the process's life: by default the first constrained request would choose it for all. Without
        # white space between JSON's parts a model cannot spend its output budget on line feeds.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    if is_cpu:
        # A request with a seed whose prompt is prefilled in several steps ends vLLM's process on a CPU: it rewinds the
        # random generator (`gen.get_offset()`, v1/worker/gpu_model_runner.py), which PyTorch has for CUDA alone. A
        # step that takes any whole prompt leaves nothing to rewind. vLLM then makes max_num_batched_tokens at least
        # max_model_len, if it is not set.
        arguments["enable_chunked_prefill"] = False
        arguments["max_num_batched_tokens"] = None
        # Compiling the model needs a C++ compiler on the machine, and makes the first start far longer.
        arguments["enforce_eager"] = True
    return arguments
