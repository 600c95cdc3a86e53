"""Spans that stay here, for tests that look at them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from tidegate.telemetry.sampling import Sampler
from tidegate.telemetry.spans import SERVER, Form, RecordingTracer, Span
from tidegate.telemetry.trace_context import TraceContext, enter, leave


class KeptSpans:
    """A sink, and a tracer that records all traces but those whose caller does not."""

    def __init__(self, *, share: float = 1.0) -> None:
        self.ended: deque[Span] = deque()
        self.cohort = 2**30
        self.has_place = True
        self.tracer = RecordingTracer(Sampler(share=share, is_parent_heard=True), self)

    def has_room(self) -> bool:
        """See ``SpanSink``."""
        return self.has_place

    def take(self) -> None:
        """See ``SpanSink``."""

    @property
    def spans(self) -> list[Span]:
        """Those that have ended, in the order of their beginnings."""
        return sorted(self.ended, key=lambda span: span.start_ns)

    def begin(self, name: str = "call") -> Span:
        """The span of a call that comes without a trace."""
        span = self.tracer.begin(Form(name, SERVER), ())
        assert isinstance(span, Span)
        return span


@contextmanager
def standing_in(context: TraceContext) -> Iterator[None]:
    """A block that serves the call of ``context``."""
    token = enter(context)
    try:
        yield
    finally:
        leave(token)
