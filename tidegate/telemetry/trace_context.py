"""Where a call stands in a trace, as W3C's Trace Context has it in metadata, and for the task that serves the call."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from random import getrandbits
from typing import Final

from tidegate.rpc.metadata import TRACEPARENT, TRACESTATE

_FORM = re.compile(r"([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(-.*)?")
SAMPLED, UNSAMPLED = 1, 0  # as flags


class TraceContext:
    """A place below one span of a trace. ``state`` is what vendors have written, passed on as it came."""

    __slots__ = ("flags", "span_id", "state", "trace_id")

    def __init__(self, trace_id: int, span_id: int, flags: int, state: str) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.state = state

    @property
    def is_sampled(self) -> bool:
        """Whether the trace is recorded by whoever began it."""
        return bool(self.flags & SAMPLED)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """For a call that goes out from here."""
        if self is UNRECORDED:
            return _UNRECORDED_METADATA
        parent = (TRACEPARENT, f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}")
        return (parent, (TRACESTATE, self.state)) if self.state else (parent,)


UNRECORDED = TraceContext(int.from_bytes(b"tidegateunrecord", "big"), int.from_bytes(b"tidegate", "big"), UNSAMPLED, "")
"""Where all calls stand that began here and are not recorded: for those behind, and current in no task.

Ids of their own would have to be drawn, written, sent, read and kept, and nobody would ever look for them.
"""
_UNRECORDED_PARENT: Final = f"00-{UNRECORDED.trace_id:032x}-{UNRECORDED.span_id:016x}-00"
_UNRECORDED_METADATA: Final = ((TRACEPARENT, _UNRECORDED_PARENT),)

_CURRENT: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)

current = _CURRENT.get
"""That of the call which the running task serves, or None."""

enter = _CURRENT.set
"""From here on the task, and what it starts, serves a call that stands there; what it returns is for ``leave``."""

leave = _CURRENT.reset
"""Not needed at the end of a task: its context ends with it."""


def new_trace_id() -> int:
    """One that nobody has had."""
    return getrandbits(128) or 1  # 0 is no id


def new_span_id() -> int:
    """One that nobody in the trace has had."""
    return getrandbits(64) or 1


def incoming(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """The caller's, by the ``metadata`` of its call; None where it has none, or one that cannot be read."""
    parent: str | bytes | None = None
    states: list[str] = []
    for key, value in metadata:
        if key == TRACEPARENT and parent is None:
            parent = value
        elif key == TRACESTATE:
            states.append(str(value))
    if parent == _UNRECORDED_PARENT:
        return UNRECORDED
    if parent is None or (form := _FORM.fullmatch(str(parent).strip())) is None:
        return None
    version, trace_id, span_id, flags, more = form.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    context = TraceContext(int(trace_id, 16), int(span_id, 16), int(flags, 16), ",".join(states))
    return context if context.trace_id and context.span_id else None
