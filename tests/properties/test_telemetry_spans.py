from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.fakes.spans import KeptSpans
from tidegate import __version__
from tidegate.telemetry.conventions import GEN_AI_RESPONSE_ID, SCHEMA_URL
from tidegate.telemetry.otlp import ExportRequests, write
from tidegate.telemetry.otlp_attribute import Value
from tidegate.telemetry.sampling import Sampler
from tidegate.telemetry.spans import CLIENT, INTERNAL, SERVER, Constant, Facts, Form, Kind, Names, Span
from tidegate.telemetry.trace_context import TraceContext, incoming

_RESOURCE = Resource({"service.name": "test", "n": 3})
_TRACE_IDS, _SPAN_IDS = (st.binary(min_size=size, max_size=size).filter(any) for size in (16, 8))
_VALUES: st.SearchStrategy[Value] = st.one_of(
    st.text(max_size=200),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
    st.lists(st.floats(allow_nan=False), max_size=20).map(tuple),
)
_ATTRIBUTES = st.dictionaries(st.sampled_from(("a", "b", GEN_AI_RESPONSE_ID, "x" * 200)), _VALUES)
_KINDS = {INTERNAL: SpanKind.INTERNAL, SERVER: SpanKind.SERVER, CLIENT: SpanKind.CLIENT}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a span is told."""

    trace_id: bytes
    parent_id: bytes
    is_parent_remote: bool
    state: str
    name: str
    kind: Kind
    of_form: dict[str, Value]
    constant: dict[str, Value]
    facts: dict[str, Value]
    events: list[dict[str, Value]]
    has_failed: bool

    def span(self) -> Span:
        """It has ended."""
        form = Form(self.name, self.kind, self.of_form)
        span = Span(KeptSpans().tracer, form, 1, trace_id=self.trace_id, parent_id=self.parent_id, state=self.state)
        span.is_parent_remote = self.is_parent_remote and bool(self.parent_id)
        span.set(Facts(_names(tuple(self.facts)), tuple(self.facts.values())))
        span.set(Constant(self.constant))
        for event in self.events:
            span.event("lost", event)
        if self.has_failed:
            span.fail()
        span.end()
        return span


@lru_cache(maxsize=1000)
def _names(names: tuple[str, ...]) -> Names:
    """The same ones again and again, so that what they keep is used."""
    return Names(*names)


def _under(prefix: str, attributes: dict[str, Value]) -> dict[str, Value]:
    """None that another part of the span has, too."""
    return {prefix + name: value for name, value in attributes.items()}


_TOLD = st.builds(
    Told,
    trace_id=_TRACE_IDS,
    parent_id=st.just(b"") | _SPAN_IDS,
    is_parent_remote=st.booleans(),
    state=st.sampled_from(("", "vendor=1", "a=1,b=2")),
    name=st.text(max_size=20),
    kind=st.sampled_from(tuple(_KINDS)),
    of_form=_ATTRIBUTES.map(partial(_under, "form.")),
    constant=_ATTRIBUTES.map(partial(_under, "constant.")),
    facts=_ATTRIBUTES,
    events=st.lists(_ATTRIBUTES, max_size=2),
    has_failed=st.booleans(),
)


def number(span_or_trace_id: bytes) -> int:
    """As the SDK has ids."""
    return int.from_bytes(span_or_trace_id, "big")


def as_the_sdk_has_it(span: Span) -> ReadableSpan:
    """The same."""
    state = TraceState.from_header([span.state] if span.state else [])
    trace_id, parent_id = number(span.trace_id), number(span.parent_id)
    parent = SpanContext(trace_id, parent_id, is_remote=span.is_parent_remote) if parent_id else None
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, number(span.span_id), is_remote=False, trace_state=state),
        parent=parent,
        resource=_RESOURCE,
        attributes=span.attributes,
        events=[Event(name, attributes, time_ns) for name, time_ns, attributes in span.events or ()],
        kind=_KINDS[span.form.kind],
        status=Status(StatusCode.ERROR if span.has_failed else StatusCode.UNSET),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=InstrumentationScope("tidegate", __version__, SCHEMA_URL),
    )


@given(st.lists(_TOLD, min_size=1, max_size=3))
def test_spans_are_written_as_the_sdk_writes_them(told: list[Told]) -> None:
    """Field by field, but for a status that says nothing."""
    spans = [one.span() for one in told]
    expected = encode_spans([as_the_sdk_has_it(span) for span in spans])
    for span in expected.resource_spans[0].scope_spans[0].spans:
        if span.status == trace_pb2.Status():
            span.ClearField("status")
    written = ExportRequests(_RESOURCE).of(map(write, spans))
    assert expected == ExportTraceServiceRequest.FromString(written)


@given(_TRACE_IDS, st.sampled_from((0.0, 0.1, 0.5, 0.999, 1.0)) | st.floats(0, 1), st.sampled_from((None, 0, 1)))
def test_traces_are_sampled_as_the_sdk_samples_them(trace_id: bytes, share: float, caller_flags: int | None) -> None:
    """By the same ids, with a caller and without."""
    caller, context = None, Context()
    if caller_flags is not None:
        caller = TraceContext(trace_id, b"of eight", caller_flags, "")
        above = SpanContext(number(trace_id), 1, is_remote=True, trace_flags=TraceFlags(caller_flags))
        context = set_span_in_context(NonRecordingSpan(above), context)
    ratio = TraceIdRatioBased(share)
    for sampler, is_parent_heard in ((ratio, False), (ParentBased(ratio), True)):
        decision = sampler.should_sample(context, number(trace_id), "call").decision
        ours = Sampler(share=share, is_parent_heard=is_parent_heard)
        assert (decision.value == 2) is ours.is_sampled(trace_id, caller)


_HEX = "0123456789abcdef"
_PARENTS = st.one_of(
    st.from_regex(r"(00|01|ff)-(0{32}|[0-9a-f]{32})-(0{16}|[0-9a-f]{16})-0[0-3](-x)?", fullmatch=True),
    st.from_regex(r"[0-9a-fA-F]{2}-[0-9a-f]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,2}", fullmatch=True),
    st.text(_HEX + "-", max_size=60),
)


@given(_PARENTS, st.lists(st.sampled_from(("a=1", "vendor=x,b=2")), max_size=2))
def test_a_callers_context_is_read_as_opentelemetry_reads_it(parent: str, states: list[str]) -> None:
    """Also one that cannot be read."""
    ours = incoming((("traceparent", parent), *(("tracestate", state) for state in states)))
    carrier = {"traceparent": [parent]} | ({"tracestate": states} if states else {})
    span = get_current_span(TraceContextTextMapPropagator().extract(carrier, Context())).get_span_context()
    assert span.is_valid is (ours is not None)
    if ours is not None:
        assert (span.trace_id, span.span_id, int(span.trace_flags)) == (
            number(ours.trace_id),
            number(ours.span_id),
            ours.flags,
        )
        assert span.trace_state == TraceState.from_header([ours.state] if ours.state else [])
