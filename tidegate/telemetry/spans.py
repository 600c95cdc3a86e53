"""Spans at a price that every request can pay: a tenth of what OpenTelemetry's SDK takes for one.

The SDK locks, checks and copies for each attribute, and looks for the current span again and again. Here a span is made
by the one above it, and an attribute is an entry of a dictionary. A call that is not recorded has no spans below its
own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from tidegate.telemetry.sampling import Sampler
from tidegate.telemetry.trace_context import (
    SAMPLED,
    UNRECORDED,
    UNSAMPLED,
    TraceContext,
    current,
    incoming,
    new_span_id,
    new_trace_id,
)

Value = str | int | float | tuple[str, ...] | tuple[float, ...]
Attributes = Mapping[str, Value]
Kind: TypeAlias = OtlpSpan.SpanKind.ValueType

INTERNAL, SERVER, CLIENT = OtlpSpan.SPAN_KIND_INTERNAL, OtlpSpan.SPAN_KIND_SERVER, OtlpSpan.SPAN_KIND_CLIENT


class Event(NamedTuple):
    """Something that has happened during a span."""

    name: str
    time_ns: int
    attributes: Attributes


class Tracer(Protocol):
    """Begins the spans of calls."""

    @property
    def elsewhere(self) -> TraceContext | None:
        """What is told to those behind a call that stands nowhere."""

    def begin(
        self, name: str, metadata: Iterable[tuple[str, str | bytes]], attributes: dict[str, Value]
    ) -> TraceContext | None:
        """Where a call with this ``metadata`` stands; by a ``Span`` of its own, which has begun, if it is recorded.

        None where it has no caller's context and is not recorded. The span takes ``attributes`` over.
        """


class NoTracer:
    """Records nothing; the caller's context travels on."""

    elsewhere: TraceContext | None = None

    def begin(
        self, name: str, metadata: Iterable[tuple[str, str | bytes]], attributes: dict[str, Value]
    ) -> TraceContext | None:
        """See ``Tracer``."""
        del name, attributes
        return incoming(metadata)


class SpanSink(Protocol):
    """Takes the spans that have ended."""

    def has_room(self) -> bool:
        """Whether a further trace may begin; where not, one is counted as lost."""

    def put(self, span: Span, /) -> None:
        """Take a span."""


class Span(TraceContext):
    """A span that has begun and will be sent. End it once; what it is told after that is lost."""

    __slots__ = (
        "_tracer",
        "attributes",
        "end_ns",
        "events",
        "has_failed",
        "is_parent_remote",
        "kind",
        "name",
        "parent_id",
        "start_ns",
    )

    def __init__(
        self, tracer: RecordingTracer, above: TraceContext, name: str, kind: Kind, attributes: dict[str, Value]
    ) -> None:
        """Use ``RecordingTracer.begin`` and ``child``."""
        super().__init__(above.trace_id, new_span_id(), SAMPLED, above.state)
        self.parent_id = above.span_id  # 0 is none
        self.is_parent_remote = False
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.events: list[Event] | None = None
        self.has_failed = False
        self.start_ns = time.time_ns()
        self.end_ns = 0
        self._tracer = tracer
        tracer.open_spans += 1

    def child(self, name: str, attributes: dict[str, Value] | None = None, *, kind: Kind = INTERNAL) -> Span:
        """A span below this one, which begins now and takes ``attributes`` over."""
        return Span(self._tracer, self, name, kind, {} if attributes is None else attributes)

    def set(self, attributes: Attributes) -> None:
        """What is known of it now."""
        if not self.end_ns:
            self.attributes.update(attributes)

    def fail(self) -> None:
        """It is this service's own failure."""
        if not self.end_ns:
            self.has_failed = True

    def event(self, name: str, attributes: Attributes) -> None:
        """Something has happened in it."""
        if not self.end_ns:
            event = Event(name=name, time_ns=time.time_ns(), attributes=attributes)
            self.events = [event] if self.events is None else [*self.events, event]

    def end(self, at_ns: int | None = None) -> None:
        """It has ended, now or at ``at_ns``."""
        if not self.end_ns:
            self.end_ns = at_ns or time.time_ns()
            self._tracer.end(self)


class RecordingTracer:
    """Records the traces that are sampled, each of them whole, as far as there is room for them."""

    elsewhere: TraceContext | None = UNRECORDED

    def __init__(self, sampler: Sampler, sink: SpanSink) -> None:
        self.open_spans = 0  # that have begun and not ended
        self._sampler = sampler
        self._sink = sink

    def begin(
        self, name: str, metadata: Iterable[tuple[str, str | bytes]], attributes: dict[str, Value]
    ) -> TraceContext | None:
        """See ``Tracer``."""
        caller, sampler = incoming(metadata), self._sampler
        if caller is UNRECORDED:
            if sampler.is_parent_heard:
                return None
            caller = None  # its ids are those of many
        if caller is None:
            trace_id = new_trace_id()
            if not sampler.is_sampled(trace_id, None) or not self._sink.has_room():
                return None
            return Span(self, TraceContext(trace_id, 0, UNSAMPLED, ""), name, SERVER, attributes)
        if not sampler.is_sampled(caller.trace_id, caller) or not self._sink.has_room():
            # The worker's part of a trace is not recorded either, where that of the gateway is not.
            if not caller.is_sampled:
                return caller
            return TraceContext(caller.trace_id, caller.span_id, UNSAMPLED, caller.state)
        span = Span(self, caller, name, SERVER, attributes)
        span.is_parent_remote = True
        return span

    def end(self, span: Span) -> None:
        """For ``Span.end``."""
        self.open_spans -= 1
        self._sink.put(span)


def current_span() -> Span | None:
    """That of the call which the running task serves; None where it is not recorded."""
    context = current()
    return context if isinstance(context, Span) else None
