"""Holds what the services recorded of the calls, their spans, against what the clients saw.

A span is sent when it ends. So one that was left open is known by those that stand below it, and by its absence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from opentelemetry.proto.trace.v1 import trace_pb2

from tests.fakes.collector import Span
from tests.reliability.history import History
from tidegate.telemetry import conventions as names

_SERVER, _CLIENT = trace_pb2.Span.SPAN_KIND_SERVER, trace_pb2.Span.SPAN_KIND_CLIENT
_GATEWAY = "tidegate-gateway"


class Accounts:
    """The books of all gateways, and what is wrong with them. Spans of a gateway that was killed died with it."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._traces: dict[str, list[Span]] = defaultdict(list)
        for span in spans:
            if span.service == _GATEWAY or span.span.kind == _SERVER:
                self._traces[span.span.trace_id.hex()].append(span)

    def open_spans(self) -> Iterator[str]:
        """Those that were never closed, of all calls."""
        for trace_id, spans in self._traces.items():
            for fault in _left_open(spans):
                yield f"trace {trace_id}: {fault}"

    def faults(self, history: History) -> Iterator[str]:
        """What is wrong with the books of one call. A client may have made it several times, as grpc retries."""
        spans = self._traces[history.trace_id]
        calls = sorted(filter(_is_call, spans), key=lambda span: span.span.end_time_unix_nano)
        for call in calls:
            yield from _call_faults(call, spans, history)
        if not calls:
            if history.events:
                yield "no gateway has closed its span"
            return
        outcomes = [str(call.attributes.get(names.OUTCOME)) for call in calls]
        if history.is_finished != ("ok" in outcomes) or outcomes.count("ok") > 1:
            yield f"a client saw {history.reasons}, and gateways recorded {outcomes}"
        tokens = int(calls[-1].attributes.get(names.GEN_AI_USAGE_OUTPUT_TOKENS, 0))
        if tokens < len(history.token_ids) or (history.is_finished and tokens > len(history.token_ids)):
            yield f"{tokens} tokens recorded, and {len(history.token_ids)} received"

    def totals(self) -> Mapping[str, Mapping[str, int]]:
        """By tenant: calls that were given to a worker, and how they ended, which together are as many."""
        totals: dict[str, Counter[str]] = defaultdict(Counter)
        for spans in self._traces.values():
            given = {span.span.parent_span_id for span in spans if span.span.kind == _CLIENT}
            for call in filter(_is_call, spans):
                ends = totals[str(call.attributes.get(names.TENANT))]
                ends["admitted"] += call.span.span_id in given
                if call.attributes.get(names.ATTEMPTS):
                    ends[_end_of(call)] += 1
        return totals


def _is_call(span: Span) -> bool:
    return span.service == _GATEWAY and span.span.kind == _SERVER


def _left_open(spans: Sequence[Span]) -> Iterator[str]:
    """Every span below the client's has its parent. What runs below a worker's call is not asked: it dies with it."""
    closed = {span.span.span_id for span in spans}
    for span in spans:
        parent_id = span.span.parent_span_id  # empty for what nobody has asked for in a trace
        if parent_id and not _is_call(span) and parent_id not in closed:
            yield f"what {span.span.name!r} of {span.service} stands below was never closed"


def _call_faults(call: Span, spans: Sequence[Span], history: History) -> Iterator[str]:
    attempts = [span for span in spans if span.span.kind == _CLIENT and span.span.parent_span_id == call.span.span_id]
    counted = int(call.attributes.get(names.ATTEMPTS, 0))
    if counted != len(attempts):
        yield f"{counted} attempts counted, and {len(attempts)} closed"
    if names.OUTCOME not in call.attributes:
        yield "a call without an outcome"
    elif (tenant := call.attributes.get(names.TENANT)) and tenant != history.tenant:
        yield f"a call of {history.tenant} is booked to {tenant}"


def _end_of(call: Span) -> str:
    outcome = str(call.attributes.get(names.OUTCOME))
    return {"ok": "finished", "cancelled": "cancelled"}.get(outcome, "failed")
