"""Instruments of OpenTelemetry's SDK, for metrics that are pushed to a collector.

How these are to be aggregated is said by variables of the operator's, all of which the SDK knows. It takes some ten
microseconds for a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from tidegate.telemetry.trace_context import current


class Pushed:
    """A counter or a histogram."""

    def __init__(self, take: Callable[..., None]) -> None:
        """``take`` is its method that takes an amount and ``attributes``."""
        self._take = take

    def under(self, attributes: Mapping[str, str]) -> PushedSeries:
        """What takes values under these attributes."""
        return PushedSeries(partial(self._take, attributes=attributes))


class PushedSeries:
    """A counter, and a histogram, under one set of attributes."""

    def __init__(self, take: Callable[[float], None]) -> None:
        self.add = self.record = take


def with_exemplars(take: Callable[..., None]) -> Callable[..., None]:
    """``take``, told of the trace that a value comes from."""

    def traced(amount: float, *, attributes: Mapping[str, str]) -> None:
        take(amount, attributes=attributes, context=_context())

    return traced


def _context() -> Context:
    """The current one in OpenTelemetry's terms, if its trace is recorded."""
    context, found = current(), Context()
    if context is None or not context.is_sampled:
        return found
    trace_id, span_id = int.from_bytes(context.trace_id, "big"), int.from_bytes(context.span_id, "big")
    span = SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(context.flags))
    return set_span_in_context(NonRecordingSpan(span), found)
