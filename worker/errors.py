"""Every way in which a worker refuses or fails a call, and the one table from exception to status.

Raise these below the edge; only the error interceptor turns them into a status (AIP-193, docs/errors.md). A gateway
never passes them on as they are: it translates them, or goes to another worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grpc import StatusCode

from tidegate.rpc.status import WORKER_DOMAIN, RpcError, Violation
from tidegate.worker.v1 import worker_service_pb2
from worker.constraints import ConstraintRejectedError
from worker.engine import EngineDeadError, EngineError
from worker.ledger import AtCapacityError, Refusal
from worker.output_port import ReaderBehindError

Reason = worker_service_pb2.WorkerErrorReason

_MAX_NAMED_VIOLATIONS = 8  # in a message, which travels in trailers


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSpec:
    """How one kind of failure travels. ``remedy`` is for docs/errors.md."""

    code: StatusCode
    reason: Reason.ValueType
    details: tuple[str, ...]
    remedy: str


class CheckpointMismatchError(Exception):
    """The request was prepared for another checkpoint."""

    def __init__(self, *, served: str, requested: str) -> None:
        super().__init__(f"this worker serves checkpoint {served[:12]}, not {requested[:12]}")
        self.served = served
        self.requested = requested


class InvalidJobError(Exception):
    """One or more fields of the request are invalid. A gateway should have refused it."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        """At least one of ``violations``."""
        named = "; ".join(f"{v.field}: {v.description}" for v in violations[:_MAX_NAMED_VIOLATIONS])
        super().__init__(f"invalid job: {named}")
        self.violations = tuple(violations)


class ConstraintViolatedError(Exception):
    """The finished output does not have the form asked for."""


class NotServingError(Exception):
    """The worker does not take calls of this kind now: it starts, hangs or shuts down."""


class DeadlineExceededError(Exception):
    """The deadline passed before the generation was complete."""


class InternalError(Exception):
    """Anything unforeseen."""


ERROR_TABLE: dict[type[Exception], ErrorSpec] = {
    AtCapacityError: ErrorSpec(
        code=StatusCode.RESOURCE_EXHAUSTED,
        reason=Reason.WORKER_ERROR_REASON_AT_CAPACITY,
        details=("RetryInfo",),
        remedy="Try another worker, or this one after the wait that RetryInfo names.",
    ),
    CheckpointMismatchError: ErrorSpec(
        code=StatusCode.FAILED_PRECONDITION,
        reason=Reason.WORKER_ERROR_REASON_CHECKPOINT_MISMATCH,
        details=(),
        remedy="Ask GetModel again; the worker was restarted with another checkpoint.",
    ),
    InvalidJobError: ErrorSpec(
        code=StatusCode.INVALID_ARGUMENT,
        reason=Reason.WORKER_ERROR_REASON_INVALID_JOB,
        details=("BadRequest",),
        remedy="Correct the gateway's validation: it should have refused the request.",
    ),
    ConstraintRejectedError: ErrorSpec(
        code=StatusCode.INVALID_ARGUMENT,
        reason=Reason.WORKER_ERROR_REASON_CONSTRAINT_REJECTED,
        details=("BadRequest",),
        remedy="Simplify the constraint.",
    ),
    ConstraintViolatedError: ErrorSpec(
        code=StatusCode.INTERNAL,
        reason=Reason.WORKER_ERROR_REASON_CONSTRAINT_VIOLATED,
        details=(),
        remedy="Report it: the engine broke its promise.",
    ),
    NotServingError: ErrorSpec(
        code=StatusCode.UNAVAILABLE,
        reason=Reason.WORKER_ERROR_REASON_NOT_SERVING,
        details=(),
        remedy="Try another worker.",
    ),
    EngineError: ErrorSpec(
        code=StatusCode.INTERNAL,
        reason=Reason.WORKER_ERROR_REASON_ENGINE_ERROR,
        details=(),
        remedy="Look at the worker's log.",
    ),
    EngineDeadError: ErrorSpec(
        code=StatusCode.UNAVAILABLE,
        reason=Reason.WORKER_ERROR_REASON_ENGINE_DEAD,
        details=(),
        remedy="Try another worker; this process ends.",
    ),
    DeadlineExceededError: ErrorSpec(
        code=StatusCode.DEADLINE_EXCEEDED,
        reason=Reason.WORKER_ERROR_REASON_DEADLINE_EXCEEDED,
        details=(),
        remedy="Give a longer deadline or ask for less output.",
    ),
    ReaderBehindError: ErrorSpec(
        code=StatusCode.ABORTED,
        reason=Reason.WORKER_ERROR_REASON_READER_BEHIND,
        details=(),
        remedy="Read faster, or ask for less: fewer log probabilities.",
    ),
    InternalError: ErrorSpec(
        code=StatusCode.INTERNAL,
        reason=Reason.WORKER_ERROR_REASON_INTERNAL,
        details=(),
        remedy="Look at the worker's log.",
    ),
}


def to_rpc(error: Exception) -> RpcError:
    """The status of ``error``. What is not in the table is INTERNAL and tells nothing of its text."""
    known = error if type(error) in ERROR_TABLE else InternalError("internal error; see the worker's log")
    spec = ERROR_TABLE[type(known)]
    metadata: dict[str, str] = {}
    violations: Sequence[Violation] = ()
    retry_after_s: float | None = None
    match known:
        case AtCapacityError():
            metadata = _capacity_metadata(known.refusal)
            retry_after_s = known.refusal.retry_after_s
        case CheckpointMismatchError():
            metadata = {"served": known.served, "requested": known.requested}
        case InvalidJobError():
            violations = known.violations
        case ConstraintRejectedError():
            violations = (Violation(field=known.field, description=known.description),)
    return RpcError(
        code=spec.code,
        reason=Reason.Name(spec.reason).removeprefix("WORKER_ERROR_REASON_"),
        domain=WORKER_DOMAIN,
        message=str(known),
        metadata=metadata,
        violations=violations,
        retry_after_s=retry_after_s,
    )


def _capacity_metadata(refusal: Refusal) -> dict[str, str]:
    metadata = {
        "limit": refusal.limit.value,
        "needed_blocks": str(refusal.needed_blocks),
        "unreserved_blocks": str(refusal.room.blocks),
        "largest_tokens": str(refusal.largest_tokens),
        "requests": str(refusal.requests),
        "admissible_requests": str(refusal.room.requests),
        "released_blocks_per_s": f"{refusal.released_blocks_per_s:.1f}",
    }
    if refusal.room.prompt_tokens is not None:
        metadata["admissible_prompt_tokens"] = str(refusal.room.prompt_tokens)
    return metadata
