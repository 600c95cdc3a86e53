"""The span of one attempt on one worker, in OpenTelemetry's GenAI terms. It holds numbers and names, never content."""

from __future__ import annotations

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
from tidegate.rpc.telemetry import outgoing_metadata
from tidegate.telemetry import conventions as names


class AttemptSpan:
    """Begins when it is made; end it once."""

    __slots__ = ("_delivered_tokens", "_span")

    def __init__(
        self, tracer: Tracer, prepared: PreparedRequest, lease: Lease, *, number: int, delivered_tokens: int = 0
    ) -> None:
        """``number`` counts the request's attempts from 1; ``delivered_tokens`` came from those before."""
        self._delivered_tokens = delivered_tokens
        self._span: Span = INVALID_SPAN
        if is_untraced_here(tracer):
            return
        operation, model = operation_of(prepared), prepared.request.model.name
        self._span = tracer.start_span(
            f"{operation} {model}",
            kind=SpanKind.CLIENT,
            attributes={
                names.GEN_AI_OPERATION_NAME: operation,
                names.GEN_AI_PROVIDER_NAME: names.PROVIDER,
                names.GEN_AI_REQUEST_MODEL: model,
                names.GEN_AI_REQUEST_MAX_TOKENS: prepared.max_output_tokens,
                names.GEN_AI_RESPONSE_ID: prepared.response_id,
                names.GEN_AI_USAGE_INPUT_TOKENS: len(prepared.prompt.token_ids),
                names.SERVER_ADDRESS: lease.worker_id,
                names.ATTEMPT_NUMBER: number,
                names.CONTINUED_TOKENS: delivered_tokens,
            },
        )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The W3C trace context of this span, for the worker's call; where it is not recorded, that of the call."""
        if self._span is INVALID_SPAN:
            return () if get_current_span() is INVALID_SPAN else outgoing_metadata()
        with use_span(self._span):
            return outgoing_metadata()

    def end(self, outcome: Outcome, passage: Passage, error: RpcError | None) -> None:
        """The attempt has ended; ``error`` is the worker's."""
        if not self._span.is_recording():
            return
        self._span.set_attribute(names.GEN_AI_USAGE_OUTPUT_TOKENS, passage.tokens - self._delivered_tokens)
        self._span.set_attribute(names.ATTEMPT_OUTCOME, outcome.value)
        if passage.finished is not None:
            reason = generation_pb2.FinishReason.Name(passage.finished.reason).removeprefix("FINISH_REASON_")
            self._span.set_attribute(names.GEN_AI_RESPONSE_FINISH_REASONS, [reason.lower()])
        if error is not None:
            self._span.set_attribute(names.ERROR_TYPE, error.reason or error.code.name)
        if outcome is Outcome.FAILED:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def operation_of(prepared: PreparedRequest) -> str:
    """What a request asks for, in GenAI terms."""
    return "chat" if isinstance(prepared.request.prompt, Chat) else "text_completion"


def is_untraced_here(tracer: Tracer) -> bool:
    """Whether no span that is made here would be recorded, so that there is no need of any.

    The call's own span tells, where there is one: what is below a span that was not sampled, is not either.
    """
    span = get_current_span()
    return isinstance(tracer, NoOpTracer) if span is INVALID_SPAN else not span.is_recording()
