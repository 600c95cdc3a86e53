"""Where a call stands in a trace, as W3C's Trace Context has it in metadata, and for the task that serves the call."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final

from tidegate.rpc.metadata import TRACEPARENT, TRACESTATE

_PARENT_KEY: Final = TRACEPARENT  # of this module, which is compiled
_STATE_KEY: Final = TRACESTATE
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
# What nearly all callers send who record a trace: version 00, and no flag but that.
_USUAL_LENGTH: Final = 55
_USUAL_BEGINNING: Final = "00-"
_USUAL_END: Final = "-01"
# W3C wants 512 characters passed on. Much more than that, sent on beside our own fields, is more than a worker takes,
# and the refusal would speak against the worker.
_LONGEST_STATE: Final = 2_048
SAMPLED: Final = 1  # as flags
UNSAMPLED: Final = 0

# Ids, in bytes. All zeros are none.
TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8
_NO_TRACE: Final = bytes(TRACE_ID_BYTES)
_NO_SPAN: Final = bytes(SPAN_ID_BYTES)
# Of ids at a time: a system call takes a microsecond.
_DRAWN_BYTES: Final = 4096


class TraceContext:
    """A place below one span of a trace. ``state`` is what vendors have written, passed on as it came."""

    __slots__ = ("flags", "span_id", "state", "trace_id")

    def __init__(self, trace_id: bytes, span_id: bytes, flags: int, state: str) -> None:
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
        flags = "01" if self.flags == SAMPLED else f"{self.flags:02x}"
        parent = (_PARENT_KEY, f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{flags}")
        return (parent, (_STATE_KEY, self.state)) if self.state else (parent,)


_CURRENT: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)

current = _CURRENT.get
"""That of the call which the running task serves, or None."""

enter = _CURRENT.set
"""From here on the task, and what it starts, serves a call that stands there; what it returns is for ``leave``."""

leave = _CURRENT.reset
"""Not needed at the end of a task: its context ends with it."""


class Ids:
    """Ids that nobody has had. Of one thread."""

    __slots__ = ("_at", "_drawn")

    def __init__(self) -> None:
        self._drawn = b""
        self._at = 0

    def next(self, size: int) -> bytes:
        """One of ``size`` bytes."""
        at = self._at
        if at + size > len(self._drawn):
            self._drawn, at = _drawn(), 0
        self._at = at + size
        return self._drawn[at : at + size]


def _drawn() -> bytes:
    while True:
        drawn = os.urandom(_DRAWN_BYTES)
        if _NO_SPAN not in drawn:
            return drawn


def incoming(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """The caller's, by the ``metadata`` of its call; None where it has none, or one that cannot be read."""
    parent: str | bytes | None = None
    states: list[str] = []
    for key, value in metadata:
        if key == _PARENT_KEY and parent is None:
            parent = value
        elif key == _STATE_KEY:
            states.append(str(value))
    if parent is None:
        return None
    text, state = str(parent), _state(states) if states else ""
    return _usual(text, state) or _read(text.strip(), state)


def _state(states: list[str]) -> str:
    """What may be sent on; a state that may not is left out, which W3C allows, and its call goes on without it."""
    state = ",".join(states)
    return state if len(state) <= _LONGEST_STATE and state.isascii() and state.isprintable() else ""


def _usual(parent: str, state: str) -> TraceContext | None:
    """Without a regular expression, which takes longer than all the rest; None where it takes one."""
    if len(parent) != _USUAL_LENGTH or parent[:3] != _USUAL_BEGINNING or parent[52:] != _USUAL_END:
        return None
    if parent[35] != "-" or parent != parent.lower():
        return None
    try:
        trace_id, span_id = bytes.fromhex(parent[3:35]), bytes.fromhex(parent[36:52])
    except ValueError:
        return None
    if len(trace_id) != TRACE_ID_BYTES or len(span_id) != SPAN_ID_BYTES:  # there were spaces
        return None
    return TraceContext(trace_id, span_id, SAMPLED, state) if trace_id != _NO_TRACE and span_id != _NO_SPAN else None


def _read(parent: str, state: str) -> TraceContext | None:
    form = _FORM.fullmatch(parent)
    if form is None:
        return None
    version, trace_id, span_id, flags, more = form.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    context = TraceContext(bytes.fromhex(trace_id), bytes.fromhex(span_id), int(flags, 16), state)
    return context if context.trace_id != _NO_TRACE and context.span_id != _NO_SPAN else None
