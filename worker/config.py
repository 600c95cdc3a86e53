"""The worker's settings, in the environment as ``TIDEGATE_WORKER_...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tidegate.settings import Address, Keepalive, OptionalAddress, ServiceSettings

_Count = Annotated[int, Field(ge=1)]
# As gateways are told of it, in 32 bits.
_Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Seconds = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(gt=0, le=1)]


class WorkerSettings(ServiceSettings):
    """What a worker serves and how. None leaves a choice to the engine."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_WORKER_")

    engine: Literal["vllm", "sim"] = "vllm"
    """vllm runs the model; sim imitates a measured machine"""
    model_dir: Path | None = None
    """directory of the checkpoint; for sim, one of tokenizer and template is built in"""
    model_name: str | None = None
    """name under which the model is served; otherwise the directory's"""
    listen: Address = "127.0.0.1:50061"
    """address to serve on; port 0 takes a free one"""
    drain_grace_s: _Seconds = 30.0
    """how long running requests may take once a shutdown has begun"""
    stall_after_s: _Seconds = 10.0
    """time without an engine step, beyond that of the pending prompts, after which the worker is unhealthy"""
    max_waiting_requests: Annotated[int, Field(ge=0)] = 32
    """requests that may wait inside the engine, beside those that run; fewer do when their prompts are long"""
    max_prefill_backlog_s: _Seconds = 2.0
    """prompts that may wait inside the engine, in seconds of its measured pace"""
    output_quantile: Annotated[float, Field(ge=0, le=1)] = 0.7
    """share of past outputs that a reservation is long enough for, at first; preemptions and spare blocks tune it"""
    prefix_file: Path | None = None
    """prefixes to compute before the worker is ready, a JSON object with text or token_ids a line"""
    prefetch_share: Annotated[float, Field(ge=0, le=0.9)] = 0.25
    """share of the KV cache that is filled with frequent prefixes while nobody needs it; 0 prefetches none"""
    default_max_output_tokens: _Size = 1024
    """output tokens of a request that names no maximum"""

    context_length: _Size | None = None
    """longest prompt and output together, in tokens"""
    max_running_requests: _Size | None = None
    """most requests in the engine's batch"""
    max_batched_tokens: _Size | None = None
    """most prompt tokens in one engine step; in vLLM the next tokens of running requests come on top"""
    kv_block_count: _Size | None = None
    """size of the KV cache, in blocks"""
    engine_seed: int = 0
    """seed of requests that bring none"""

    gpu_memory_utilization: _Share = 0.9
    """vllm: share of the GPU's memory for weights, activations and KV cache"""
    kv_cache_bytes: _Count | None = None
    """vllm: size of the KV cache in bytes, instead of a share"""
    tensor_parallel_size: _Count = 1
    """vllm: GPUs that share the model"""
    pipeline_parallel_size: _Count = 1
    """vllm: groups of such GPUs that hold the layers one after the other; for a model larger than a node"""
    distributed_executor_backend: Literal["mp", "ray"] | None = None
    """vllm: what runs the processes of several GPUs; ray for those of other nodes (extra `ray`)"""
    dtype: str = "auto"
    """vllm: type of weights and activations that are not quantized"""
    load_format: str = "auto"
    """vllm: how weights are read; dummy makes random ones"""
    eager: bool = False
    """vllm: do without compilation and CUDA graphs"""

    profile: str = "h200-llama3-8b-awq"
    """sim: profile of the machine to imitate, by name or path"""
    sim_time_scale: _Seconds = 1.0
    """sim: duration of a simulated second; below 1 is faster than the machine"""
    sim_mean_output_tokens: _Count | None = None
    """sim: end texts by themselves, after so many tokens on average; otherwise at their limit"""
    sim_fault_text: str | None = None
    """sim: text in a prompt that the engine does not survive, for tests of what happens then"""
    sim_fault: Literal["die", "kill", "hang"] = "die"
    """sim: what such a prompt does: end the engine, kill the process, or have the engine make no step any more"""
    sim_fault_after_tokens: Annotated[int, Field(ge=0)] = 0
    """sim: how many tokens of its output come before that"""

    admin_listen: OptionalAddress = "127.0.0.1:9465"
    """address for metrics; port 0 takes a free one, an empty address serves none"""
    log_format: Literal["text", "json"] = "text"
    """json writes one object a line"""
    otlp_endpoint: str | None = None
    """OpenTelemetry collector for traces, http://host:4317; otherwise the one that OTEL_EXPORTER_OTLP_... names"""

    data_plane: Literal["http2", "grpc"] = "http2"
    """what carries tokens: the HTTP/2 edge, or grpc.aio, which is slower and the reference"""

    keepalive_s: Keepalive = 20.0
    """silence after which a peer is sent a PING; below the idle timeout of any proxy in between"""
    keepalive_timeout_s: Keepalive = 10.0
    """how long a peer may take to answer it before its connection is given up, with all calls on it"""
