"""What is recorded of a call served: its span and its duration.

Names are those of OpenTelemetry's RPC conventions (release candidate). A span never holds content of a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import grpc

from tidegate.telemetry.catalogue import RPC_DURATION
from tidegate.telemetry.conventions import ERROR_TYPE, RPC_METHOD, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME
from tidegate.telemetry.metrics import Histogram
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.spans import Span
from tidegate.telemetry.trace_context import enter

# What the conventions count as a server's own failure; the rest is the caller's affair and leaves the status unset.
_SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNKNOWN,
    }
)


class ServedCalls:
    """Records the calls that a server serves."""

    def __init__(self, telemetry: Telemetry, clock: Callable[[], float] = time.monotonic) -> None:
        self.tracer = telemetry.tracer
        self.clock = clock
        self._durations = telemetry.metrics.histogram(RPC_DURATION)
        self._ended: dict[tuple[str, grpc.StatusCode], Ended] = {}  # by method, of those that are served here

    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> ServedCall:
        """A call has come. ``method`` without its leading slash; ``metadata`` is the call's."""
        return ServedCall(self, method, metadata)

    def ended(self, method: str, code: grpc.StatusCode) -> Ended:
        """What is recorded of a call that has ended with ``code``."""
        ended = self._ended.get((method, code))
        if ended is None:
            attributes = {RPC_RESPONSE_STATUS_CODE: code.name}
            if code in _SERVER_FAULTS:
                attributes[ERROR_TYPE] = code.name
            durations = self._durations.under({RPC_SYSTEM_NAME: "grpc", RPC_METHOD: method} | attributes)
            ended = self._ended[method, code] = Ended(durations, attributes)
        return ended


class Ended(NamedTuple):
    """Where the duration of a call goes, and what its span is told of its end."""

    durations: Histogram
    attributes: Mapping[str, str]


class ServedCall:
    """One call; its span is below its caller's, and current in the task that makes it. End it once."""

    __slots__ = ("_began_at", "_calls", "_method", "_span")

    def __init__(self, calls: ServedCalls, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Use ``ServedCalls.begin``."""
        self._calls = calls
        self._method = method
        self._began_at = calls.clock()
        context = calls.tracer.begin(method, metadata, {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: method})
        self._span = context if isinstance(context, Span) else None
        if context is not None:
            enter(context)  # never left: each call runs in a task of its own

    def end(self, code: grpc.StatusCode) -> None:
        """The call has ended with ``code``."""
        ended = self._calls.ended(self._method, code)
        ended.durations.record(self._calls.clock() - self._began_at)
        if self._span is not None:
            if code in _SERVER_FAULTS:
                self._span.fail()
            self._span.set(ended.attributes)
            self._span.end()
