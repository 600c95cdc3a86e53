"""What is recorded of a call served: its span and its duration.

Names are those of OpenTelemetry's RPC conventions (release candidate). A span never holds content of a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import grpc

from tidegate.telemetry.catalogue import RPC_DURATION
from tidegate.telemetry.conventions import ERROR_TYPE, RPC_METHOD, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME
from tidegate.telemetry.metrics import Histogram, Instrument
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.spans import SERVER, Constant, Form, Span
from tidegate.telemetry.trace_context import enter

_GRPC: Final = "grpc"
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
        self._methods: dict[str, Method] = {}  # those that are served here

    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> ServedCall:
        """A call has come. ``method`` without its leading slash; ``metadata`` is the call's."""
        known = self._methods.get(method)
        if known is None:
            known = self._methods[method] = Method(method, self._durations)
        return ServedCall(self, known, metadata)


class Ended:
    """What is recorded of calls of one method that end with ``code``."""

    __slots__ = ("attributes", "code", "durations", "is_failure")

    def __init__(self, code: grpc.StatusCode, method: Form, durations: Instrument[Histogram]) -> None:
        self.code = code
        self.is_failure = code in _SERVER_FAULTS
        attributes = {RPC_RESPONSE_STATUS_CODE: code.name}
        if self.is_failure:
            attributes[ERROR_TYPE] = code.name
        self.durations = durations.under({RPC_SYSTEM_NAME: _GRPC, RPC_METHOD: method.name} | attributes)
        self.attributes = Constant(attributes)


class Method:
    """What is recorded of calls of one method."""

    __slots__ = ("_durations", "_ended", "form")

    def __init__(self, name: str, durations: Instrument[Histogram]) -> None:
        self.form = Form(name, SERVER, {RPC_SYSTEM_NAME: _GRPC, RPC_METHOD: name})
        self._durations = durations
        self._ended: list[
            Ended
        ] = []  # few codes; to look one up in a dictionary, its hash is computed by enum, in Python

    def ended(self, code: grpc.StatusCode) -> Ended:
        """With ``code``."""
        for ended in self._ended:
            if ended.code is code:
                return ended
        ended = Ended(code, self.form, self._durations)
        self._ended.append(ended)
        return ended


class ServedCall:
    """One call; its span is below its caller's, and current in the task that makes it. End it once."""

    __slots__ = ("_began_at", "_calls", "_method", "_span")

    def __init__(self, calls: ServedCalls, method: Method, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Use ``ServedCalls.begin``."""
        self._calls = calls
        self._method = method
        self._began_at = calls.clock()
        context = calls.tracer.begin(method.form, metadata)
        self._span = context if isinstance(context, Span) else None
        if context is not None:
            enter(context)  # never left: each call runs in a task of its own

    def end(self, code: grpc.StatusCode) -> None:
        """The call has ended with ``code``."""
        ended = self._method.ended(code)
        ended.durations.record(self._calls.clock() - self._began_at)
        if self._span is not None:
            if ended.is_failure:
                self._span.fail()
            self._span.set(ended.attributes)
            self._span.end()
