"""One plan: what is asked, what comes of it, and what was taken for granted."""

from __future__ import annotations

from dataclasses import dataclass

from worker.plan.gpu import Gpu, known_gpus
from worker.plan.memory import OVERHEAD_BYTES, DoesNotFitError, Memory, blocks_for
from worker.plan.pace import Traffic, scaled
from worker.plan.prices import Cost, Prices, costs
from worker.plan.replicas import Engine, Replicas, Targets, replicas_for
from worker.plan.shape import ModelShape
from worker.sim_profile import SimProfile

_LIKE = 0.1  # relative difference of two models' sizes that makes none of their times
_FAR = 2.0  # times the measured prompt; attention begins to matter


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be served."""

    requests_per_s: float
    traffic: Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``costs`` is empty without prices."""

    shape: ModelShape
    gpu: Gpu
    load: Load
    engine: Engine
    request_blocks: int
    prefill_tokens_per_s: float  # of full steps
    decode_tokens_per_s: float  # of a full batch
    replicas: Replicas
    currency: str
    costs: tuple[Cost, ...]
    assumptions: tuple[str, ...]


def make_plan(  # noqa: PLR0913 - what a plan is made of
    shape: ModelShape,
    gpu: Gpu,
    profile: SimProfile,
    load: Load,
    *,
    memory: Memory,
    targets: Targets,
    prices: Prices | None = None,
) -> Plan:
    """The fewest replicas of one GPU each. Raises ``DoesNotFitError``."""
    traffic = load.traffic
    if (tokens := traffic.prompt_tokens + traffic.output_tokens) > shape.context_length:
        raise DoesNotFitError(f"a request of {tokens} tokens is longer than the model's {shape.context_length}")
    request_tokens = traffic.prompt_tokens + max(traffic.output_tokens, traffic.reserved_output_tokens)
    blocks = blocks_for(memory, shape, gpu, known_gpus(), tokens=request_tokens)
    timing = profile.timing
    if not _is_like(shape, profile) and profile.parameters and profile.weight_bytes:
        timing = scaled(
            timing,
            weights=shape.weight_bytes / profile.weight_bytes,
            parameters=shape.parameters / profile.parameters,
        )
    engine = Engine(
        total_blocks=blocks,
        block_size=memory.block_size,
        max_running_requests=profile.max_running_requests,
        max_batched_tokens=profile.max_batched_tokens,
        timing=timing,
    )
    replicas = replicas_for(engine, traffic, targets, load.requests_per_s)
    batch, requests = engine.max_batched_tokens, engine.max_running_requests
    return Plan(
        shape=shape,
        gpu=gpu,
        load=load,
        engine=engine,
        request_blocks=traffic.blocks(memory.block_size),
        prefill_tokens_per_s=batch / timing.step_s(prefill_tokens=batch, decode_requests=0),
        decode_tokens_per_s=requests / timing.step_s(prefill_tokens=0, decode_requests=requests),
        replicas=replicas,
        currency=prices.currency if prices else "",
        costs=tuple(
            costs(prices, traffic, load.requests_per_s, gpu=gpu.name, gpu_count=replicas.count) if prices else ()
        ),
        assumptions=tuple(_assumptions(shape, gpu, profile, traffic, memory)),
    )


def _is_like(shape: ModelShape, profile: SimProfile) -> bool:
    pairs = ((shape.parameters, profile.parameters), (shape.weight_bytes, profile.weight_bytes))
    return all(abs(mine - its) <= _LIKE * its for mine, its in pairs)


def _assumptions(shape: ModelShape, gpu: Gpu, profile: SimProfile, traffic: Traffic, memory: Memory) -> list[str]:
    weights = "as large as their files" if shape.are_weights_measured else "reckoned from config.json"
    share, overhead = f"{memory.utilization:.0%}", f"{OVERHEAD_BYTES / 1e9:.0f} GB"
    lines = [
        f"weights: {weights}; {share} of the GPU's memory for the engine, {overhead} of it for neither weights nor KV",
        "one GPU a replica; requests all alike, coming at random at a steady rate, spread evenly; no shared prefixes",
        "means, not percentiles; where an engine is busy above 70 % the TTFT is longer than this says",
        f"step times: profile {profile.name} ({profile.source})",
    ]
    if profile.gpu != gpu.name:
        lines.append(f"NOT MEASURED on a {gpu.name}: the times are those of a {profile.gpu or 'GPU not named'}")
    if not _is_like(shape, profile):
        lines.append(
            "NOT MEASURED with this model: times scaled by bytes of weights (a step) and parameters (a token)"
            if profile.parameters and profile.weight_bytes
            else "NOT MEASURED with this model, perhaps: the profile does not tell its own"
        )
    longest = max((row.prompt_tokens + row.output_tokens for row in profile.measured), default=0)
    if traffic.prompt_tokens + traffic.output_tokens > _FAR * longest:
        lines.append(f"attention over more than the {longest} tokens measured takes longer than this says")
    return lines
