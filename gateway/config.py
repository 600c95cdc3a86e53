"""The gateway's settings, in the environment as ``TIDEGATE_GATEWAY_...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from tidegate.settings import Address, Keepalive, OptionalAddress, ServiceSettings, check_address

# The largest message that is received, so that one prompt alone always fits the backlog.
_MIN_BACKLOG_BYTES = 4 * 2**20
# As long as what HS256 makes of a key.
_MIN_KEY_BYTES = 32

# Three prompts of 128k tokens.
_MIN_QUEUE_BYTES = 16 * 2**20

_Count = Annotated[int, Field(ge=1)]
_TenantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
_Seconds = Annotated[float, Field(gt=0)]


class TenantSettings(BaseModel):
    """What one tenant may have; [tenants.NAME] in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: Annotated[float, Field(gt=0)] = 1.0
    tokens_per_minute: _Count | None = None
    requests_per_minute: _Count | None = None


class GatewaySettings(ServiceSettings):
    """Which workers a gateway serves, and how."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_GATEWAY_")

    workers: Annotated[tuple[str, ...], NoDecode, Field(min_length=1)]
    """where the workers are, separated by commas: host:port, dns:NAME:PORT or file:PATH"""
    listen: Address = "127.0.0.1:50051"
    """address to serve on; port 0 takes a free one"""
    tokenizer_dir: Path | None = None
    """directory with tokenizer.json and chat template; otherwise each worker is asked for its own"""
    max_in_flight: _Count = 4096
    """calls held at one time; more are refused"""
    max_duration_s: _Seconds = 600.0
    """longest duration of a call, also of one without a deadline"""
    prepare_threads: _Count = 2
    """threads that validate, render and tokenise requests"""
    prepare_backlog_bytes: Annotated[int, Field(ge=_MIN_BACKLOG_BYTES)] = 16 * 2**20
    """requests that may wait for such a thread, in bytes; more are refused"""
    otlp_endpoint: str | None = None
    """OpenTelemetry collector for traces, http://host:4317; otherwise the one that OTEL_EXPORTER_OTLP_... names"""
    drain_grace_s: _Seconds = 30.0
    """how long running calls may take once a shutdown has begun"""

    traffic_sketch_dir: Path | None = None
    """directory for a sketch of each model's traffic, for the quantizer to calibrate with; otherwise none is written"""
    traffic_sketch_requests: Annotated[int, Field(ge=0, le=10_000)] = 0
    """requests to keep in a sketch, text and all; 0 keeps lengths and turns only"""
    traffic_sketch_interval_s: _Seconds = 60.0
    """time between two writings of a sketch"""
    admin_listen: OptionalAddress = "127.0.0.1:9464"
    """address for metrics and status page; port 0 takes a free one, an empty address serves none"""
    log_format: Literal["text", "json"] = "text"
    """json writes one object a line"""
    data_plane: Literal["http2", "grpc"] = "http2"
    """what carries tokens: the HTTP/2 edge, or grpc.aio, which is slower and the reference"""
    processes: _Count = 1
    """processes that serve the port, each a gateway of its own; limits and quotas are divided among them"""
    reuse_port: bool = False
    """whether other processes of this machine may serve the same port"""

    max_wait_s: _Seconds = 1.5
    """longest wait for a worker's KV blocks; what would wait longer is refused at once"""
    queue_bytes: Annotated[int, Field(ge=_MIN_QUEUE_BYTES)] = 64 * 2**20
    """requests that may wait for a worker, in bytes for each model; less critical ones leave for more critical ones"""
    max_pause_s: Annotated[float, Field(ge=0)] = 10.0
    """how long a stream whose worker was lost may wait for another one to go on with it"""
    max_lost_workers: Annotated[int, Field(ge=0)] = 6
    """how many workers one stream may lose; 0 never goes on with another worker"""
    max_reader_stall_s: _Seconds = 30.0
    """how long a client may take nothing of its stream before it is ended and its KV blocks are freed"""
    resume_key_file: Path | None = None
    """file with a secret on each line, the first of which signs resume tokens; without it there are none"""
    resume_token_lifetime_s: _Seconds = 600.0
    """how long after its beginning a generation can be resumed"""
    trust_tenant_metadata: bool = False
    """whether the metadata x-tidegate-tenant tells whose a call is; otherwise all are of the tenant "default\""""
    max_tenants: _Count = 1000
    """tenants told apart at one time, beside those with terms of their own; more are one together, "other\""""
    tenants: dict[_TenantName, TenantSettings] = Field(default_factory=dict)
    """terms by tenant: weight, tokens_per_minute, requests_per_minute; those of "default" hold for all without"""
    quota_gateways: _Count = 1
    """gateways among which tenants' calls are spread evenly: each enforces this part of their quotas"""

    decision_log: Path | None = None
    """file to which all decisions are appended, from the queue's to those of retries, for `tidegate replay`"""

    hedge_share: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    """share of critical requests that a second worker may begin when their first token is overdue (http2); 0: none"""

    keepalive_s: Keepalive = 20.0
    """silence after which a peer is sent a PING; below the idle timeout of any proxy in between"""
    keepalive_timeout_s: Keepalive = 10.0
    """how long a peer may take to answer it before its connection is given up, with all calls on it"""

    @field_validator("resume_key_file")
    @classmethod
    def _check_resume_keys(cls, path: Path | None) -> Path | None:
        if path is None:
            return path
        try:
            keys = [line.strip() for line in path.read_bytes().splitlines() if line.strip()]
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from error
        if not keys or min(map(len, keys)) < _MIN_KEY_BYTES:
            raise ValueError(f"each line of {path} has to hold a key of at least {_MIN_KEY_BYTES} bytes")
        return path

    @field_validator("workers", mode="before")
    @classmethod
    def _split_workers(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(","))
        return value

    @field_validator("workers")
    @classmethod
    def _check_workers(cls, workers: tuple[str, ...]) -> tuple[str, ...]:
        for worker in workers:
            kind, _, rest = worker.partition(":") if worker.startswith(("dns:", "file:")) else ("", "", worker)
            if kind != "file":
                check_address(rest)
        if len(set(workers)) < len(workers):
            raise ValueError("an address stands here twice")
        return workers
