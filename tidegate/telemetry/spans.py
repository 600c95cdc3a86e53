"""Spans at a price that every request can pay: a twentieth of what OpenTelemetry's SDK takes for one.

The SDK locks, checks and copies for each attribute, and looks for the current span again and again. Here a span is made
by the one above it. What is the same for all spans of a kind is said once, in a ``Form``; of each there are ids, times
and tuples of values, of which nothing is made before many spans are written in one go. A call that is not recorded has
no spans below its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol, TypeAlias

from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from tidegate.telemetry.otlp_attribute import Attribute, Value
from tidegate.telemetry.sampling import Sampler
from tidegate.telemetry.trace_context import (
    SAMPLED,
    SPAN_ID_BYTES,
    TRACE_ID_BYTES,
    UNSAMPLED,
    Ids,
    TraceContext,
    current,
    incoming,
)

Attributes = Mapping[str, Value]
Kind: TypeAlias = OtlpSpan.SpanKind.ValueType

INTERNAL, SERVER, CLIENT = OtlpSpan.SPAN_KIND_INTERNAL, OtlpSpan.SPAN_KIND_SERVER, OtlpSpan.SPAN_KIND_CLIENT
_NO_ATTRIBUTES: Final[Attributes] = {}
_now_ns: Final = time.time_ns


class Form:
    """What all spans of one kind have in common. It keeps how it is written, so make one, and not one for each span."""

    __slots__ = ("attributes", "kind", "name", "written")

    def __init__(self, name: str, kind: Kind = INTERNAL, attributes: Attributes = _NO_ATTRIBUTES) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.written = b""  # for ``otlp``


class Constant:
    """Attributes whose values are the same for many spans. It keeps how it is written, as a form does."""

    __slots__ = ("attributes", "written")

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self.written = b""


class Names:
    """The names of attributes that are told together."""

    __slots__ = ("attributes",)

    def __init__(self, *names: str) -> None:
        self.attributes = [Attribute(name) for name in names]


class Facts:
    """Attributes whose values are new with each span, in the order of their names."""

    __slots__ = ("names", "values")

    def __init__(self, names: Names, values: tuple[Value, ...]) -> None:
        self.names = names
        self.values = values

    @property
    def attributes(self) -> Attributes:
        """Names and values."""
        names = (attribute.name for attribute in self.names.attributes)
        return dict(zip(names, self.values, strict=True))


class Event(NamedTuple):
    """Something that has happened during a span."""

    name: str
    time_ns: int
    attributes: Attributes


class Tracer(Protocol):
    """Begins the spans of calls."""

    def begin(self, form: Form, metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
        """Where a call with this ``metadata`` stands; by a ``Span`` of its own, which has begun, if it is recorded.

        None where it has no caller's context and is not recorded.
        """


class NoTracer:
    """Records nothing; the caller's context travels on."""

    def begin(self, form: Form, metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
        """See ``Tracer``."""
        del form
        return incoming(metadata)


class SpanSink(Protocol):
    """Takes the spans that have ended."""

    @property
    def ended(self) -> deque[Span]:
        """Where they are put."""

    @property
    def cohort(self) -> int:
        """When so many are there, they should be taken."""

    def has_room(self) -> bool:
        """Whether a further trace may begin; where not, one is counted as lost."""

    def take(self) -> None:
        """Take what has ended."""


class Span(TraceContext):
    """A span that has begun and will be sent. End it once; what it is told after that is lost."""

    __slots__ = (
        "_tracer",
        "end_ns",
        "events",
        "form",
        "has_failed",
        "is_parent_remote",
        "parent_id",
        "start_ns",
        "told",
    )

    def __init__(  # noqa: PLR0913 - its fields
        self, tracer: RecordingTracer, form: Form, start_ns: int, *, trace_id: bytes, parent_id: bytes, state: str
    ) -> None:
        """Use ``RecordingTracer.begin`` and ``child``."""
        super().__init__(trace_id, tracer.ids.next(SPAN_ID_BYTES), SAMPLED, state)
        self.parent_id = parent_id  # empty is none
        self.is_parent_remote = False
        self.form = form
        self.told: list[Facts | Constant] | None = None
        self.events: list[Event] | None = None
        self.has_failed = False
        self.start_ns = start_ns
        self.end_ns = 0
        self._tracer = tracer
        tracer.open_spans += 1

    @property
    def name(self) -> str:
        """As its form has it."""
        return self.form.name

    @property
    def attributes(self) -> Attributes:
        """All that it was told, and what its form says."""
        attributes = dict(self.form.attributes)
        for told in self.told or ():
            attributes.update(told.attributes)
        return attributes

    def child(self, form: Form, start_ns: int = 0) -> Span:
        """A span below this one, which begins now, or has begun at ``start_ns``."""
        return Span(
            self._tracer,
            form,
            start_ns or _now_ns(),
            trace_id=self.trace_id,
            parent_id=self.span_id,
            state=self.state,
        )

    def set(self, told: Facts | Constant) -> None:
        """What is known of it now. No attribute may be set twice."""
        if self.end_ns:
            return
        if self.told is None:
            self.told = [told]
        else:
            self.told.append(told)

    def fail(self) -> None:
        """It is this service's own failure."""
        if not self.end_ns:
            self.has_failed = True

    def event(self, name: str, attributes: Attributes) -> None:
        """Something has happened in it."""
        if not self.end_ns:
            event = Event(name=name, time_ns=_now_ns(), attributes=attributes)
            self.events = [event] if self.events is None else [*self.events, event]

    def end(self, at_ns: int = 0) -> None:
        """It has ended, now or at ``at_ns``."""
        if not self.end_ns:
            self.end_ns = at_ns or _now_ns()
            self._tracer.end(self)


class RecordingTracer:
    """Records the traces that are sampled, each of them whole, as far as there is room for them. Of one thread."""

    def __init__(self, sampler: Sampler, sink: SpanSink) -> None:
        self.open_spans = 0  # that have begun and not ended
        self.ids = Ids()
        self._sampler = sampler
        self._sink = sink
        self._ended = sink.ended
        self._cohort = sink.cohort

    def begin(self, form: Form, metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
        """See ``Tracer``."""
        caller, sampler = incoming(metadata), self._sampler
        if caller is None:
            if not sampler.share:
                return None  # without ids: nobody would ever look for them
            trace_id = self.ids.next(TRACE_ID_BYTES)
            if not sampler.is_sampled(trace_id, None) or not self._sink.has_room():
                return None
            return Span(self, form, _now_ns(), trace_id=trace_id, parent_id=b"", state="")
        if not sampler.is_sampled(caller.trace_id, caller) or not self._sink.has_room():
            # The worker's part of a trace is not recorded either, where that of the gateway is not.
            if not caller.is_sampled:
                return caller
            return TraceContext(caller.trace_id, caller.span_id, UNSAMPLED, caller.state)
        span = Span(self, form, _now_ns(), trace_id=caller.trace_id, parent_id=caller.span_id, state=caller.state)
        span.is_parent_remote = True
        return span

    def end(self, span: Span) -> None:
        """For ``Span.end``."""
        self.open_spans -= 1
        self._ended.append(span)
        if len(self._ended) >= self._cohort:
            self._sink.take()


def current_span() -> Span | None:
    """That of the call which the running task serves; None where it is not recorded."""
    context = current()
    return context if isinstance(context, Span) else None
