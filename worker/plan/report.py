"""A plan as text, and as the object that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from worker.plan.plan import Plan

_GB = 10**9


def as_text(plan: Plan) -> str:
    """For people."""
    return "\n".join(_lines(plan)) + "\n"


def as_object(plan: Plan) -> dict[str, Any]:
    """For programs. Durations in seconds; a target that was not set is absent."""
    replicas, engine, load = plan.replicas, plan.engine, plan.load
    return {
        "model": asdict(plan.shape),
        "gpu": asdict(plan.gpu),
        "load": {"requests_per_s": load.requests_per_s, **asdict(load.traffic)},
        "replica": {
            "total_blocks": engine.total_blocks,
            "block_size": engine.block_size,
            "request_blocks": plan.request_blocks,
            "streams_by_blocks": replicas.streams_by_blocks,
            "max_running_requests": engine.max_running_requests,
            "prefill_tokens_per_s": plan.prefill_tokens_per_s,
            "decode_tokens_per_s": plan.decode_tokens_per_s,
            "most_requests_per_s": replicas.most.requests_per_s,
            "bound": replicas.bound.name.lower(),
        },
        "replicas": replicas.count,
        "each": asdict(replicas.pace),
        "currency": plan.currency,
        "costs": [asdict(cost) for cost in plan.costs],
        "assumptions": list(plan.assumptions),
    }


def _lines(plan: Plan) -> Iterator[str]:
    replicas, engine, each = plan.replicas, plan.engine, plan.replicas.pace
    traffic, most = plan.load.traffic, plan.replicas.most
    yield f"{replicas.count} x {plan.gpu.name} for {plan.load.requests_per_s:g} requests/s of {plan.shape.name}"
    yield ""
    yield f"weights             {plan.shape.weight_bytes / _GB:.1f} GB"
    yield (
        f"KV cache            {engine.total_blocks:,} blocks of {engine.block_size} tokens, "
        f"{plan.shape.kv_bytes_per_token / 1024:.0f} KiB a token"
    )
    yield (
        f"one request         {plan.request_blocks} blocks reserved ({traffic.prompt_tokens} prompt and "
        f"{traffic.reserved_output_tokens} output tokens)"
    )
    yield (
        f"streams at once     {min(replicas.streams_by_blocks, engine.max_running_requests)} "
        f"({replicas.streams_by_blocks} by blocks, {engine.max_running_requests} by the batch)"
    )
    yield (
        f"rates               prefill {plan.prefill_tokens_per_s:,.0f} tok/s, decode {plan.decode_tokens_per_s:,.0f} "
        "tok/s, each with nothing of the other"
    )
    yield f"most for a replica  {most.requests_per_s:.1f} requests/s; bound: {replicas.bound.value}"
    yield (
        f"each then           {each.requests_per_s:.1f} requests/s, {each.streams:.0f} streams, busy "
        f"{each.busy_share:.0%}, TTFT {each.ttft_s * 1e3:.0f} ms, ITL {each.itl_s * 1e3:.1f} ms"
    )
    for cost in plan.costs:
        yield (
            f"{plan.currency} {cost.per_hour:,.2f} an hour, {cost.per_million_tokens:.3f} a million tokens, "
            f"{cost.per_million_output_tokens:.3f} a million output tokens: {cost.name}"
        )
    yield ""
    yield "Taken for granted:"
    for line in plan.assumptions:
        yield f"- {line}"
