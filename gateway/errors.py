"""Every way in which the gateway refuses or fails a call, and the one table from exception to status.

Raise these below the edge; only the error interceptor turns them into a status (AIP-193, docs/errors.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grpc import StatusCode

from tidegate.inference.v1 import error_reason_pb2
from tidegate.rpc.status import INFERENCE_DOMAIN, RpcError, Violation

Reason = error_reason_pb2.ErrorReason

# A message stands in the trailers twice, as it is and in the details, where the violations stand once more.
_MOST_IN_MESSAGE, _MOST_CHARACTERS = 8, 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSpec:
    """How one kind of failure travels. ``remedy`` is for docs/errors.md."""

    code: StatusCode
    reason: Reason.ValueType
    details: tuple[str, ...]
    remedy: str


class GatewayError(Exception):
    """A call cannot be served. Subclasses add what their status details need."""

    quota_subject: str | None = None

    def __init__(
        self,
        message: str,
        *,
        metadata: dict[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_s: float | None = None,
        resource: tuple[str, str] | None = None,
    ) -> None:
        """``message`` is for people; every number in it stands in ``metadata`` too."""
        super().__init__(message)
        self.metadata = metadata or {}
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s
        self.resource = resource


class InvalidRequestError(GatewayError):
    """One or more fields are invalid."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        """There is at least one of ``violations``. The details have all, the message the first ones."""
        named = [f"{v.field}: {v.description}" for v in violations[:_MOST_IN_MESSAGE]]
        while len(named) > 1 and sum(map(len, named)) > _MOST_CHARACTERS:
            named.pop()
        more = f"; and {len(violations) - len(named)} more" if len(violations) > len(named) else ""
        super().__init__(f"invalid request: {'; '.join(named)}{more}", violations=violations)


class ChatTemplateRejectedError(GatewayError):
    """The model's chat template does not accept the conversation."""


class ContextLengthExceededError(GatewayError):
    """Prompt and output do not fit the model's context."""


class KvPoolExceededError(GatewayError):
    """Prompt and output do not fit any worker's KV pool."""


class ConstraintRejectedError(GatewayError):
    """The output constraint cannot be compiled within its limits."""


class ModelNotFoundError(GatewayError):
    """The model is not served here."""


class AdmissionQueueFullError(GatewayError):
    """The gateway holds as many requests as it may."""


class KvExhaustedError(GatewayError):
    """No worker had KV blocks for the request for as long as it could wait."""


class WaitTooLongError(GatewayError):
    """The request would wait for a worker longer than its deadline or this deployment allows."""


class QuotaExceededError(GatewayError):
    """The tenant's quota is used up for now."""

    def __init__(
        self, message: str, *, quota_subject: str, metadata: dict[str, str], retry_after_s: float | None
    ) -> None:
        """``retry_after_s`` is None where the request is larger than the whole quota."""
        super().__init__(message, metadata=metadata, retry_after_s=retry_after_s)
        self.quota_subject = quota_subject


class EvictedError(GatewayError):
    """The request waited, and had to go for a more critical one or for a tenant that held less."""


class NoWorkerAvailableError(GatewayError):
    """No worker serves the model at present."""


class DrainingError(GatewayError):
    """This gateway is shutting down."""


class StreamInterruptedError(GatewayError):
    """The worker was lost after the first token."""


class DeadlineExceededError(GatewayError):
    """The deadline passed before the call was finished."""


class DeadlineTooShortError(GatewayError):
    """The deadline is too short for the output, and the request says to refuse then."""


class RequestQuarantinedError(GatewayError):
    """The request was on two workers when their engines died."""


class ConstraintViolatedError(GatewayError):
    """The finished output does not have the form asked for."""


class EngineFailedError(GatewayError):
    """The engine failed on this request."""


class InternalError(GatewayError):
    """Anything unforeseen."""


class ResumeTokenInvalidError(GatewayError):
    """The resume token is none of this deployment's, or not for this request."""


class ResumeTokenExpiredError(GatewayError):
    """The resume token is too old."""


class ResumeUnsupportedError(GatewayError):
    """This deployment has no key for resume tokens."""


class ClientTooSlowError(GatewayError):
    """The client did not read for too long."""


ERROR_TABLE: dict[type[GatewayError], ErrorSpec] = {
    InvalidRequestError: ErrorSpec(
        code=StatusCode.INVALID_ARGUMENT,
        reason=Reason.ERROR_REASON_INVALID_REQUEST,
        details=("BadRequest",),
        remedy="Correct the named fields.",
    ),
    ChatTemplateRejectedError: ErrorSpec(
        code=StatusCode.INVALID_ARGUMENT,
        reason=Reason.ERROR_REASON_CHAT_TEMPLATE_REJECTED,
        details=("BadRequest",),
        remedy="Use the roles and the order that this model's template knows.",
    ),
    ContextLengthExceededError: ErrorSpec(
        code=StatusCode.INVALID_ARGUMENT,
        reason=Reason.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        details=("BadRequest",),
        remedy="Shorten the prompt or lower max_output_tokens.",
    ),
    KvPoolExceededError: ErrorSpec(
        code=StatusCode.INVALID_ARGUMENT,
        reason=Reason.ERROR_REASON_KV_POOL_EXCEEDED,
        details=("BadRequest",),
        remedy="Shorten the prompt or lower max_output_tokens; waiting does not help.",
    ),
    ConstraintRejectedError: ErrorSpec(
        code=StatusCode.INVALID_ARGUMENT,
        reason=Reason.ERROR_REASON_CONSTRAINT_REJECTED,
        details=("BadRequest",),
        remedy="Simplify the constraint.",
    ),
    ModelNotFoundError: ErrorSpec(
        code=StatusCode.NOT_FOUND,
        reason=Reason.ERROR_REASON_MODEL_NOT_FOUND,
        details=("ResourceInfo",),
        remedy="Choose a model that ListModels names.",
    ),
    AdmissionQueueFullError: ErrorSpec(
        code=StatusCode.RESOURCE_EXHAUSTED,
        reason=Reason.ERROR_REASON_ADMISSION_QUEUE_FULL,
        details=("RetryInfo",),
        remedy="Retry after the wait that RetryInfo names.",
    ),
    KvExhaustedError: ErrorSpec(
        code=StatusCode.RESOURCE_EXHAUSTED,
        reason=Reason.ERROR_REASON_KV_EXHAUSTED,
        details=("RetryInfo",),
        remedy="Retry after the wait that RetryInfo names.",
    ),
    WaitTooLongError: ErrorSpec(
        code=StatusCode.RESOURCE_EXHAUSTED,
        reason=Reason.ERROR_REASON_WAIT_TOO_LONG,
        details=("RetryInfo",),
        remedy="Retry after the wait that RetryInfo names, or give a longer deadline where `limit` is `deadline`.",
    ),
    QuotaExceededError: ErrorSpec(
        code=StatusCode.RESOURCE_EXHAUSTED,
        reason=Reason.ERROR_REASON_QUOTA_EXCEEDED,
        details=("QuotaFailure", "RetryInfo"),
        remedy="Retry after the wait that RetryInfo names; without one the request is larger than the whole quota.",
    ),
    EvictedError: ErrorSpec(
        code=StatusCode.RESOURCE_EXHAUSTED,
        reason=Reason.ERROR_REASON_EVICTED,
        details=("RetryInfo",),
        remedy="Retry after the wait that RetryInfo names.",
    ),
    NoWorkerAvailableError: ErrorSpec(
        code=StatusCode.UNAVAILABLE,
        reason=Reason.ERROR_REASON_NO_WORKER_AVAILABLE,
        details=("RetryInfo",),
        remedy="Retry; if it lasts, look at the workers.",
    ),
    DrainingError: ErrorSpec(
        code=StatusCode.UNAVAILABLE,
        reason=Reason.ERROR_REASON_DRAINING,
        details=("RetryInfo",),
        remedy="Retry; another replica answers.",
    ),
    StreamInterruptedError: ErrorSpec(
        code=StatusCode.UNAVAILABLE,
        reason=Reason.ERROR_REASON_STREAM_INTERRUPTED,
        details=(),
        remedy="No other worker went on; metadata tells why. Send the request again, or with the received text as an"
        " assistant message to be continued.",
    ),
    DeadlineExceededError: ErrorSpec(
        code=StatusCode.DEADLINE_EXCEEDED,
        reason=Reason.ERROR_REASON_DEADLINE_EXCEEDED,
        details=(),
        remedy="Give a longer deadline or ask for less output.",
    ),
    DeadlineTooShortError: ErrorSpec(
        code=StatusCode.DEADLINE_EXCEEDED,
        reason=Reason.ERROR_REASON_DEADLINE_TOO_SHORT,
        details=(),
        remedy="Give a longer deadline, ask for less output, or allow clamping.",
    ),
    RequestQuarantinedError: ErrorSpec(
        code=StatusCode.INVALID_ARGUMENT,
        reason=Reason.ERROR_REASON_REQUEST_QUARANTINED,
        details=(),
        remedy="Do not send it again before the time in `expires_in_s`. Report it: a request must not kill an engine.",
    ),
    ConstraintViolatedError: ErrorSpec(
        code=StatusCode.INTERNAL,
        reason=Reason.ERROR_REASON_CONSTRAINT_VIOLATED,
        details=(),
        remedy="Report it: the engine broke its promise.",
    ),
    EngineFailedError: ErrorSpec(
        code=StatusCode.INTERNAL,
        reason=Reason.ERROR_REASON_ENGINE_ERROR,
        details=(),
        remedy="Report it with the request id.",
    ),
    ResumeTokenInvalidError: ErrorSpec(
        code=StatusCode.INVALID_ARGUMENT,
        reason=Reason.ERROR_REASON_RESUME_TOKEN_INVALID,
        details=("BadRequest",),
        remedy="Resume with the token of the call that broke off, and the very request of that call.",
    ),
    ResumeTokenExpiredError: ErrorSpec(
        code=StatusCode.FAILED_PRECONDITION,
        reason=Reason.ERROR_REASON_RESUME_TOKEN_EXPIRED,
        details=(),
        remedy="Send the request anew, without resume.",
    ),
    ResumeUnsupportedError: ErrorSpec(
        code=StatusCode.FAILED_PRECONDITION,
        reason=Reason.ERROR_REASON_RESUME_UNSUPPORTED,
        details=(),
        remedy="Send the request anew, without resume; or give the gateways a key (--resume-key-file).",
    ),
    ClientTooSlowError: ErrorSpec(
        code=StatusCode.ABORTED,
        reason=Reason.ERROR_REASON_CLIENT_TOO_SLOW,
        details=(),
        remedy="Read faster, or resume once there is time to read.",
    ),
    InternalError: ErrorSpec(
        code=StatusCode.INTERNAL,
        reason=Reason.ERROR_REASON_INTERNAL,
        details=(),
        remedy="Report it with the request id.",
    ),
}


def reason_of(error: GatewayError) -> str:
    """The name by which ``error`` travels."""
    return Reason.Name(ERROR_TABLE[type(error)].reason).removeprefix("ERROR_REASON_")


def to_rpc(error: Exception) -> RpcError:
    """The status of ``error``. What is not a GatewayError is INTERNAL and tells nothing of its text."""
    known = error if isinstance(error, GatewayError) else InternalError("internal error; see the server's log")
    spec = ERROR_TABLE[type(known)]
    return RpcError(
        code=spec.code,
        reason=reason_of(known),
        domain=INFERENCE_DOMAIN,
        message=str(known),
        metadata=known.metadata,
        violations=known.violations,
        retry_after_s=known.retry_after_s,
        quota_subject=known.quota_subject,
        resource=known.resource,
    )
