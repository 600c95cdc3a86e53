"""The worker's settings: flag > environment (``TIDEGATE_WORKER_...``) > TOML file > default.

Unknown keys are errors in all three.
"""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

_ENV_PREFIX = "TIDEGATE_WORKER_"

_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(gt=0, le=1)]


class WorkerSettings(BaseSettings):
    """What a worker serves and how. None leaves a choice to the engine."""

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX,
        extra="forbid",
        frozen=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
    )

    engine: Literal["vllm", "sim"] = "vllm"
    """vllm runs the model; sim imitates a measured machine"""
    model_dir: Path | None = None
    """directory of the checkpoint; for sim, one of tokenizer and template is built in"""
    model_name: str | None = None
    """name under which the model is served; otherwise the directory's"""
    listen: str = "127.0.0.1:50061"
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
    default_max_output_tokens: _Count = 1024
    """output tokens of a request that names no maximum"""

    context_length: _Count | None = None
    """longest prompt and output together, in tokens"""
    max_running_requests: _Count | None = None
    """most requests in the engine's batch"""
    max_batched_tokens: _Count | None = None
    """most tokens in one engine step"""
    kv_block_count: _Count | None = None
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

    admin_listen: str = "127.0.0.1:9465"
    """address for metrics; port 0 takes a free one, an empty address serves none"""
    log_format: Literal["text", "json"] = "text"
    """json writes one object a line"""
    otlp_endpoint: str | None = None
    """OpenTelemetry collector for traces, http://host:4317; otherwise the one that OTEL_EXPORTER_OTLP_... names"""

    data_plane: Literal["http2", "grpc"] = "http2"
    """what carries tokens: the HTTP/2 edge, or grpc.aio, which is slower and the reference"""

    @field_validator("admin_listen")
    @classmethod
    def _check_admin_listen(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if listen and not (host and port.isdecimal()):
            raise ValueError(f"{listen!r} is not host:port")
        return listen

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before arguments, which are what the file says. Flags come before both."""
        return env_settings, init_settings

    def to_toml(self) -> str:
        """The settings as a file that ``--config`` reads. TOML has no null: what is None is left out."""
        values = self.model_dump(mode="json", exclude_none=True)
        return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


class ConfigError(Exception):
    """The settings are not usable. One line per fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line with all it refers to."""

    settings: WorkerSettings
    print_config: bool
    supervise: bool


def read_command(arguments: Sequence[str]) -> Command:
    """Parse the command line, the environment and the file. Raises ``ConfigError``; exits on ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Serve one model over gRPC.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings, named as the flags are")
    parser.add_argument("--print-config", action="store_true", help="print the settings in effect and exit")
    parser.add_argument("--supervise", action="store_true", help="start the worker again whenever its engine has died")
    flags = CliSettingsSource[argparse.ArgumentParser](WorkerSettings, root_parser=parser)
    parsed = parser.parse_args(arguments)
    unknown = sorted(_unknown_variables())
    if unknown:
        raise ConfigError("\n".join(f"{name}: no such setting" for name in unknown))
    try:
        from_file = tomllib.loads(parsed.config.read_text(encoding="utf-8")) if parsed.config else {}
        settings = CliApp.run(WorkerSettings, cli_args=parsed, cli_settings_source=flags, **from_file)
    except OSError as error:
        raise ConfigError(f"{parsed.config}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{parsed.config}: {error}") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ConfigError("\n".join(faults)) from error
    return Command(settings=settings, print_config=parsed.print_config, supervise=parsed.supervise)


def _unknown_variables() -> Iterator[str]:
    known = {f"{_ENV_PREFIX}{name}".upper() for name in WorkerSettings.model_fields}
    return (name for name in os.environ if name.upper().startswith(_ENV_PREFIX) and name.upper() not in known)
