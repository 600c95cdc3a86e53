"""What is compiled: the modules that run for every relayed message, and those whose classes these are made of.

A module fits here when it is free of what mypyc does not compile: classes with bases that are not compiled, and
attributes that are put on objects from outside. All make one library, in which they call one another in C.
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

# A package that has modules here says so in its ``__init__``: see ``choice.search_path``.
MODULES = (*(f"tidegate.http2.{name}" for name in _HTTP2), "gateway.passage")


def source_of(module: str) -> str:
    """The module's file, from the root of the packages."""
    return f"{module.replace('.', '/')}.py"
