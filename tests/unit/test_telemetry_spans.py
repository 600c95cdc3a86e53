from __future__ import annotations

import pytest

from tests.fakes.spans import KeptSpans, standing_in
from tidegate.telemetry.sampling import Sampler, sampler_of_environment
from tidegate.telemetry.spans import (
    CLIENT,
    SERVER,
    Constant,
    Facts,
    Form,
    Names,
    NoTracer,
    Span,
    current_span,
)
from tidegate.telemetry.trace_context import Ids, TraceContext, current

_TRACE_ID, _CALLER_ID = bytes.fromhex("0af7651916cd43dd8448eb211c80319c"), bytes.fromhex("b7ad6b7169203331")
_PARENT = f"00-{_TRACE_ID.hex()}-{_CALLER_ID.hex()}"
_CALL = Form("call", SERVER)


def test_a_call_stands_below_its_caller() -> None:
    """In the caller's trace, with what vendors have written there."""
    kept = KeptSpans()
    span = kept.tracer.begin(_CALL, (("traceparent", f"{_PARENT}-01"), ("tracestate", "a=1")))
    assert isinstance(span, Span)
    assert (_TRACE_ID, _CALLER_ID, True, "call", "a=1") == (
        span.trace_id,
        span.parent_id,
        span.is_parent_remote,
        span.name,
        span.state,
    )
    expected = (("traceparent", f"00-{_TRACE_ID.hex()}-{span.span_id.hex()}-01"), ("tracestate", "a=1"))
    assert expected == span.metadata


def test_a_child_stands_below_its_span() -> None:
    """And begins open: the tracer knows how many are."""
    kept = KeptSpans()
    call = kept.begin()
    child = call.child(Form("attempt", CLIENT))
    assert (call.trace_id, call.span_id, False) == (child.trace_id, child.parent_id, child.is_parent_remote)
    assert 5 == call.child(Form("phase"), start_ns=5).start_ns
    assert 3 == kept.tracer.open_spans
    child.end()
    assert ([child], 2) == (list(kept.ended), kept.tracer.open_spans)


def test_a_span_has_what_it_was_told_and_what_its_form_says() -> None:
    """In that order."""
    span = KeptSpans().tracer.begin(Form("call", SERVER, {"a": 1}), ())
    assert isinstance(span, Span)
    span.set(Facts(Names("b", "c"), (2, "x")))
    span.set(Constant({"d": True}))
    assert {"a": 1, "b": 2, "c": "x", "d": True} == span.attributes


def test_nothing_is_said_of_a_span_after_its_end() -> None:
    """It may be on its way already."""
    kept = KeptSpans()
    span = kept.begin()
    span.end(at_ns=7)
    span.set(Constant({"late": 1}))
    span.event("late", {})
    span.fail()
    span.end()
    assert ({}, None, False, 7, [span]) == (
        span.attributes,
        span.events,
        span.has_failed,
        span.end_ns,
        list(kept.ended),
    )


@pytest.mark.parametrize(("flags", "is_recorded"), [("00", False), ("01", True), ("03", True)])
def test_the_caller_says_whether_its_trace_is_recorded(flags: str, *, is_recorded: bool) -> None:
    """Whatever share of its own traces a process records; and those behind it are told the same."""
    kept = KeptSpans(share=0.0 if is_recorded else 1.0)
    context = kept.tracer.begin(_CALL, (("traceparent", f"{_PARENT}-{flags}"),))
    assert context is not None
    assert (is_recorded, is_recorded, _TRACE_ID) == (isinstance(context, Span), context.is_sampled, context.trace_id)


def test_what_is_not_recorded_stands_nowhere() -> None:
    """Nothing is drawn, kept or told for it; nor when the sink is full."""
    unsampled, full = KeptSpans(share=0.0), KeptSpans()
    full.has_place = False
    calls = [kept.tracer.begin(_CALL, ()) for kept in (unsampled, full)]
    assert [None, None] == calls


def test_a_caller_who_does_not_record_is_passed_on_as_it_came() -> None:
    """Its own context is the last one that anybody knows."""
    metadata = (("traceparent", f"{_PARENT}-00"), ("tracestate", "a=1"))
    context = KeptSpans().tracer.begin(_CALL, metadata)
    assert context is not None
    assert metadata == context.metadata


def test_a_trace_without_room_ends_at_its_caller() -> None:
    """Those behind are told not to record what would stand below nothing."""
    kept = KeptSpans()
    kept.has_place = False
    context = kept.tracer.begin(_CALL, (("traceparent", f"{_PARENT}-01"),))
    assert context is not None
    assert (("traceparent", f"{_PARENT}-00"),) == context.metadata


def test_without_a_tracer_the_callers_context_travels_on() -> None:
    """Unchanged; without a caller there is none."""
    metadata = (("traceparent", f"{_PARENT}-03"), ("tracestate", "a=1"), ("tracestate", "b=2"))
    context = NoTracer().begin(_CALL, metadata)
    assert context is not None
    assert (("traceparent", f"{_PARENT}-03"), ("tracestate", "a=1,b=2")) == context.metadata
    assert NoTracer().begin(_CALL, ()) is None


@pytest.mark.parametrize("states", [["v=\xe9"], ["a=1", "b=\x01"], ["v=\x7f"], ["v=" + "x" * 1_500] * 2])
def test_a_state_that_may_not_be_sent_on_is_left_out(states: list[str]) -> None:
    """Its call would fail where it goes on to a worker; the context itself travels on."""
    metadata = (("traceparent", f"{_PARENT}-01"), *(("tracestate", state) for state in states))
    for tracer in (NoTracer(), KeptSpans().tracer):
        context = tracer.begin(_CALL, metadata)
        assert context is not None
        assert _TRACE_ID == context.trace_id
        assert ["traceparent"] == [key for key, _ in context.metadata]


def test_the_current_span_is_one_that_is_recorded() -> None:
    """A context without a span is none."""
    span, passing = KeptSpans().begin(), TraceContext(b"trace of sixteen", b"of eight", 1, "")
    with standing_in(span):
        assert (span, span) == (current(), current_span())
    with standing_in(passing):
        assert (passing, None) == (current(), current_span())
    assert (None, None) == (current(), current_span())


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        (None, None, Sampler(share=1.0, is_parent_heard=True)),
        ("always_on", None, Sampler(share=1.0, is_parent_heard=False)),
        ("always_off", None, Sampler(share=0.0, is_parent_heard=False)),
        ("parentbased_always_off", None, Sampler(share=0.0, is_parent_heard=True)),
        ("traceidratio", "0.25", Sampler(share=0.25, is_parent_heard=False)),
        ("ParentBased_TraceIdRatio", "0.25", Sampler(share=0.25, is_parent_heard=True)),
        ("traceidratio", "much", Sampler(share=1.0, is_parent_heard=False)),
        ("traceidratio", "2", Sampler(share=1.0, is_parent_heard=False)),
        ("jaeger_remote", None, Sampler(share=1.0, is_parent_heard=True)),
    ],
)
def test_the_operator_chooses_the_sampler(
    monkeypatch: pytest.MonkeyPatch, name: str | None, argument: str | None, expected: Sampler
) -> None:
    """By OpenTelemetry's variables; what cannot be read records all."""
    for variable, value in (("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    assert expected == sampler_of_environment()


def test_no_id_is_drawn_twice() -> None:
    """Nor is one of zeros, which would be none."""
    ids = Ids()
    drawn = [ids.next(size) for size in (16, 8, 8) * 1000]
    assert [] == [one for one in drawn if not any(one)]
    assert len(drawn) == len(set(drawn))
