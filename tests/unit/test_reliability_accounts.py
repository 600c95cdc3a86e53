from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.fakes.collector import Span
from tests.reliability.accounts import Accounts
from tests.reliability.history import History
from tidegate.telemetry import conventions as names

SERVER, CLIENT = trace_pb2.Span.SPAN_KIND_SERVER, trace_pb2.Span.SPAN_KIND_CLIENT


def history(*, tokens: int = 2, reason: str = "FINISHED") -> History:
    """Of a call of tenant red."""
    return History(seed=1, wanted_tokens=2, tenant="red", events=["started"], token_ids=[1] * tokens, reasons=[reason])


def span(
    call: History, span_id: int, parent_id: int, kind: int, *, service: str = "gateway", **attributes: Any
) -> Span:
    """One that has ended; ``attributes`` are names of ``conventions``."""
    values = [
        common_pb2.KeyValue(
            key=getattr(names, name),
            value=common_pb2.AnyValue(int_value=value)
            if isinstance(value, int)
            else common_pb2.AnyValue(string_value=str(value)),
        )
        for name, value in attributes.items()
    ]
    return Span(
        service=f"tidegate-{service}",
        span=trace_pb2.Span(
            name="span",
            trace_id=bytes.fromhex(call.trace_id),
            span_id=span_id.to_bytes(8, "big"),
            parent_span_id=parent_id.to_bytes(8, "big"),
            kind=kind,  # type: ignore[arg-type]
            attributes=values,
        ),
    )


def spans(call: History, **attributes: Any) -> list[Span]:
    """A call at a gateway with one attempt, and the worker's part of it."""
    told: dict[str, Any] = {
        "TENANT": "red",
        "OUTCOME": "ok",
        "ATTEMPTS": 1,
        "GEN_AI_USAGE_OUTPUT_TOKENS": 2,
    } | attributes
    return [
        span(call, 1, 99, SERVER, **told),
        span(call, 2, 1, CLIENT),
        span(call, 3, 2, SERVER, service="worker"),
    ]


def faults(call: History, recorded: Sequence[Span]) -> list[str]:
    """All that is wrong."""
    accounts = Accounts(recorded)
    return [*accounts.open_spans(), *accounts.faults(call)]


def test_books_that_agree_have_no_fault() -> None:
    """What was given to a worker has one end."""
    call = history()
    assert [] == faults(call, spans(call))
    assert {"red": {"admitted": 1, "finished": 1}} == Accounts(spans(call)).totals()


def test_a_span_that_was_never_closed_is_found_by_what_stands_below_it() -> None:
    """The attempt was never sent, though the worker's part of it was."""
    call = history()
    (opened,) = Accounts([recorded for recorded in spans(call) if recorded.span.kind != CLIENT]).open_spans()
    assert opened.endswith("'span' of tidegate-worker stands below was never closed")


def test_a_call_of_another_tenant_an_attempt_or_a_token_too_many_are_found() -> None:
    """Each is one fault."""
    call = history()
    assert ["a call of red is booked to blue"] == faults(call, spans(call, TENANT="blue"))
    assert ["2 attempts counted, and 1 closed"] == faults(call, spans(call, ATTEMPTS=2))
    assert ["3 tokens recorded, and 2 received"] == faults(call, spans(call, GEN_AI_USAGE_OUTPUT_TOKENS=3))


def test_gateway_and_client_have_to_agree_on_the_end() -> None:
    """A finished call is not one that failed, and one that nobody recorded is not there."""
    call = history()
    assert 1 == len(faults(call, spans(call, OUTCOME="STREAM_INTERRUPTED")))
    assert ["no gateway has closed its span"] == faults(call, [])
