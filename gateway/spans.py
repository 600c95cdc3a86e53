"""The span of one attempt on one worker, in OpenTelemetry's GenAI terms. It holds numbers and names, never content."""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.trace import (
    INVALID_SPAN,
    NoOpTracer,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    use_span,
)

from gateway.chat import Chat
from gateway.jobs import PreparedRequest
from gateway.passage import Passage
from gateway.policy.outcomes import Outcome
from gateway.workers.seat import Lease
from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.status import RpcError
from tidegate.rpc.telemetry import ERROR_TYPE, outgoing_metadata


class AttemptSpan:
    """Begins when it is made; end it once."""

    def __init__(  # noqa: PLR0913 - what is known of an attempt when it begins
        self,
        tracer: Tracer,
        prepared: PreparedRequest,
        lease: Lease,
        *,
        number: int,
        delivered_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``number`` counts the request's attempts from 1; ``delivered_tokens`` came from those before."""
        self._delivered_tokens = delivered_tokens
        self._span: Span = INVALID_SPAN
        if isinstance(tracer, NoOpTracer) and get_current_span() is INVALID_SPAN:
            return  # part of no trace, and begins none
        model = prepared.request.model.name
        operation = "chat" if isinstance(prepared.request.prompt, Chat) else "text_completion"
        self._span = tracer.start_span(
            f"{operation} {model}",
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.request.model": model,
                "gen_ai.request.max_tokens": prepared.max_output_tokens,
                "gen_ai.response.id": prepared.response_id,
                "gen_ai.usage.input_tokens": len(prepared.prompt.token_ids),
                "server.address": lease.worker_id,
                "tidegate.attempt.number": number,
                "tidegate.attempt.continued_tokens": delivered_tokens,
                "tidegate.worker.available_blocks": lease.load.available_blocks,
                "tidegate.worker.load_age_s": clock() - lease.load.received_at,
            },
        )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The W3C trace context of this span, for the worker's call."""
        if self._span is INVALID_SPAN:
            return ()
        with use_span(self._span):
            return outgoing_metadata()

    def end(self, outcome: Outcome, passage: Passage, error: RpcError | None) -> None:
        """The attempt has ended; ``error`` is the worker's."""
        if not self._span.is_recording():
            return
        self._span.set_attribute("gen_ai.usage.output_tokens", passage.tokens - self._delivered_tokens)
        self._span.set_attribute("tidegate.attempt.outcome", outcome.value)
        if passage.finished is not None:
            reason = generation_pb2.FinishReason.Name(passage.finished.reason).removeprefix("FINISH_REASON_")
            self._span.set_attribute("gen_ai.response.finish_reasons", [reason.lower()])
        if error is not None:
            self._span.set_attribute(ERROR_TYPE, error.reason or error.code.name)
        if outcome is Outcome.FAILED:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
