"""How many engines a load needs. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from worker.plan.memory import DoesNotFitError
from worker.plan.pace import Pace, Traffic, pace
from worker.sim_profile import StepTiming

_HALVINGS = 50


class Bound(Enum):
    """What keeps one engine from taking more."""

    BLOCKS = "KV blocks"
    REQUESTS = "requests in a batch"
    TIME = "the engine's time"
    TTFT = "the time to the first token asked for"
    ITL = "the time between tokens asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One replica."""

    total_blocks: int
    block_size: int
    max_running_requests: int
    max_batched_tokens: int
    timing: StepTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """How full an engine may be, as shares, and how slow, in seconds."""

    kv_use: float = 0.8
    busy_share: float = 0.7
    ttft_s: float = math.inf
    itl_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """The answer. ``pace`` is that of each, the load spread evenly; ``most`` that of an engine as full as it may be."""

    count: int
    pace: Pace
    most: Pace
    bound: Bound
    streams_by_blocks: int  # that each engine's target for its blocks admits


def replicas_for(engine: Engine, traffic: Traffic, targets: Targets, requests_per_s: float) -> Replicas:
    """The fewest engines for that load. Raises ``DoesNotFitError`` where no number of them would do."""
    broken = _broken(engine, traffic, targets, 0.0)
    if broken is not None:
        raise DoesNotFitError(f"even an idle engine does not hold the targets: {broken.value}")
    low, high = 0.0, 1.0
    while _broken(engine, traffic, targets, high) is None:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _broken(engine, traffic, targets, middle) is None else (low, middle)
    count = max(1, math.ceil(requests_per_s / low))
    most = _pace(engine, traffic, low)
    each = _pace(engine, traffic, requests_per_s / count)
    bound = _broken(engine, traffic, targets, high)
    if most is None or each is None or bound is None:
        raise AssertionError("low holds the targets, and high does not")
    return Replicas(
        count=count,
        pace=each,
        most=most,
        bound=bound,
        streams_by_blocks=_streams(engine, traffic, targets),
    )


def _broken(engine: Engine, traffic: Traffic, targets: Targets, requests_per_s: float) -> Bound | None:
    """The first target that an engine at this load does not hold. What breaks at a load breaks at every greater one."""
    found = _pace(engine, traffic, requests_per_s)
    if found is None or found.busy_share > targets.busy_share:
        return Bound.TIME
    if found.streams > engine.max_running_requests:
        return Bound.REQUESTS
    if found.streams > _streams(engine, traffic, targets) or not _streams(engine, traffic, targets):
        return Bound.BLOCKS
    if found.ttft_s > targets.ttft_s:
        return Bound.TTFT
    return Bound.ITL if found.itl_s > targets.itl_s else None


def _streams(engine: Engine, traffic: Traffic, targets: Targets) -> int:
    return int(engine.total_blocks * targets.kv_use) // traffic.blocks(engine.block_size)


def _pace(engine: Engine, traffic: Traffic, requests_per_s: float) -> Pace | None:
    return pace(engine.timing, traffic, requests_per_s, max_batched_tokens=engine.max_batched_tokens)
