"""The span of one attempt on one worker, in OpenTelemetry's GenAI terms. It holds numbers and names, never content."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from gateway.chat import Chat
from gateway.jobs import PreparedRequest
from gateway.passage import Passage
from gateway.policy.outcomes import Outcome
from gateway.workers.seat import Lease
from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.status import RpcError
from tidegate.telemetry import conventions as names
from tidegate.telemetry.spans import CLIENT, Facts, Form, Names, Span
from tidegate.telemetry.trace_context import current

_ATTEMPT: Final = Names(
    names.GEN_AI_REQUEST_MAX_TOKENS,
    names.GEN_AI_RESPONSE_ID,
    names.GEN_AI_USAGE_INPUT_TOKENS,
    names.SERVER_ADDRESS,
    names.ATTEMPT_NUMBER,
    names.CONTINUED_TOKENS,
    names.GEN_AI_USAGE_OUTPUT_TOKENS,
    names.ATTEMPT_OUTCOME,
)
_FINISHED: Final = Names(names.GEN_AI_RESPONSE_FINISH_REASONS)
_FAILED: Final = Names(names.ERROR_TYPE)
# As conventions have it: ("stop",) and the like.
_REASONS = {
    reason: (name.removeprefix("FINISH_REASON_").lower(),) for name, reason in generation_pb2.FinishReason.items()
}
_UNSPECIFIED = ("unspecified",)  # a worker may know reasons that we do not


class AttemptSpan:
    """Begins when it is made; end it once."""

    __slots__ = ("_delivered_tokens", "_lease", "_number", "_prepared", "_span")

    def __init__(
        self,
        call: Span | None,
        prepared: PreparedRequest,
        lease: Lease,
        *,
        number: int,
        delivered_tokens: int = 0,
    ) -> None:
        """Below ``call``'s, where that is recorded.

        ``number`` counts the request's attempts from 1; ``delivered_tokens`` came from those before.
        """
        self._delivered_tokens = delivered_tokens
        self._lease = lease
        self._number = number
        self._prepared = prepared
        self._span: Span | None = None
        if call is not None:
            self._span = call.child(_form(operation_of(prepared), prepared.request.model.name))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The W3C trace context of this span, for the worker's call; where it is not recorded, that of the call."""
        context = self._span or current()
        return () if context is None else context.metadata

    def end(self, outcome: Outcome, passage: Passage, error: RpcError | None) -> None:
        """The attempt has ended; ``error`` is the worker's."""
        span = self._span
        if span is None:
            return
        prepared = self._prepared
        span.set(
            Facts(
                _ATTEMPT,
                (
                    prepared.max_output_tokens,
                    prepared.response_id,
                    prepared.prompt_tokens,
                    self._lease.worker_id,
                    self._number,
                    self._delivered_tokens,
                    passage.tokens - self._delivered_tokens,
                    outcome.value,
                ),
            )
        )
        if passage.finished is not None:
            span.set(Facts(_FINISHED, (_REASONS.get(passage.finished.reason, _UNSPECIFIED),)))
        if error is not None:
            span.set(Facts(_FAILED, (error.reason or error.code.name,)))
        if outcome is Outcome.FAILED:
            span.fail()
        span.end()


def operation_of(prepared: PreparedRequest) -> str:
    """What a request asks for, in GenAI terms."""
    return "chat" if isinstance(prepared.request.prompt, Chat) else "text_completion"


@lru_cache(maxsize=256)
def _form(operation: str, model: str) -> Form:
    return Form(
        f"{operation} {model}",
        CLIENT,
        {
            names.GEN_AI_OPERATION_NAME: operation,
            names.GEN_AI_PROVIDER_NAME: names.PROVIDER,
            names.GEN_AI_REQUEST_MODEL: model,
        },
    )
