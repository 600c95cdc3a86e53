"""What is compiled: what runs for every relayed message and for every request, and what these are made of.

A module fits here when it is free of what mypyc does not compile, or compiles to something else: classes with bases
that are not compiled, or with heirs that are not (so ``gateway.policy.waiter`` and its ``guest`` stay out), attributes
that are put on objects from outside, a local that is deleted in a coroutine, an attribute that is read where mypy has
just seen it set to None. All make one library, in which they call one another in C.
"""

from __future__ import annotations

_HTTP2 = (
    "alarms",
    "call_io",
    "channel",
    "client_call",
    "connection",
    "endpoint",
    "errors",
    "exchanges",
    "field_decoder",
    "field_literals",
    "field_sections",
    "fields",
    "flow",
    "frames",
    "grpc_status",
    "limits",
    "linger",
    "messages",
    "metadata",
    "outbound",
    "relay",
    "request_head",
    "server",
    "server_call",
    "session",
    "settings",
    "splice",
    "stream_table",
    "streams",
    "transport",
)

_GATEWAY = (
    "admission",
    "call",
    "carriers",
    "chat",
    "chat_prompt",
    "continuing",
    "dispatch",
    "generation",
    "hedging",
    "intake",
    "jobs",
    "journal",
    "measures",
    "passage",
    "place",
    "prefix",
    "preparation",
    "prompt",
    "prompt_tokenizer",
    "records",
    "request",
    "sampling",
    "scout",
    "segment_cache",
    "spans",
    "traffic_sketches",
    "violations",
    "waiting_room",
    "word_cache",
    "workers.fleet",
    "workers.held_call",
    "workers.seat",
    "workers.upstreams",
)

_POLICY = (
    "attempts",
    "balancer",
    "breaker",
    "bucket",
    "candidate",
    "continuation",
    "demand",
    "ejection",
    "elsewhere",
    "expected_output",
    "fair_flows",
    "lag",
    "limit",
    "load",
    "outcomes",
    "outliers",
    "output_budget",
    "prediction",
    "prefix_index",
    "quarantine",
    "queue",
    "quota",
    "rate",
    "recorded_breaker",
    "recorded_limit",
    "recorded_line",
    "retry_budget",
    "silence",
    "slow_reader",
    "standing",
    "supply",
    "tenants",
    "traffic",
    "turn",
    "unseen_work",
    "wait_forecast",
    "waiting_line",
)

# A package that has modules here says so in its ``__init__``: see ``choice.search_path``.
MODULES = (
    *(f"tidegate.http2.{name}" for name in _HTTP2),
    *(f"gateway.{name}" for name in _GATEWAY),
    *(f"gateway.policy.{name}" for name in _POLICY),
    "tidegate.rpc.running_calls",
    "tidegate.rpc.served_calls",
    "tidegate.telemetry.otlp",
    "tidegate.telemetry.recorder",
    "tidegate.telemetry.sampling",
    "tidegate.telemetry.span_export",
    "tidegate.telemetry.spans",
    "tidegate.telemetry.trace_context",
)


def source_of(module: str) -> str:
    """The module's file, from the root of the packages."""
    return f"{module.replace('.', '/')}.py"
