"""What a worker's answer means: for the worker's reputation, for another attempt, and for the client.

One table, by the worker's ErrorInfo.reason; errors without one come from the transport and go by their status code. No
worker's status reaches a client as it is: INVALID_ARGUMENT from a worker is a defect of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.errors import (
    ClientTooSlowError,
    ConstraintRejectedError,
    ConstraintViolatedError,
    DeadlineExceededError,
    EngineFailedError,
    GatewayError,
    InternalError,
    KvExhaustedError,
    NoWorkerAvailableError,
    StreamInterruptedError,
)
from tidegate.rpc.status import WORKER_DOMAIN, RpcError

_RETRY_AFTER_S = 1.0  # for clients, where no worker gave a better hint


class Outcome(Enum):
    """How an attempt ended, as far as it tells something about the worker.

    Only FAILED speaks against it. REFUSED does not, but means that the next job had better go elsewhere.
    """

    SUCCESS = "success"
    IGNORED = "ignored"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one kind of error means.

    ``can_move`` says whether another worker may do better, as long as the client has seen nothing; ``error`` is what
    the client is told when none does. Once the client has seen something, an error that could move is an interruption.
    ``is_lost``: it is the worker that failed, and not the job.
    """

    outcome: Outcome
    can_move: bool
    error: type[GatewayError]
    is_lost: bool = False


def _verdict(outcome: Outcome, error: type[GatewayError], *, can_move: bool = False) -> Verdict:
    return Verdict(outcome=outcome, can_move=can_move, error=error)


_LOST = Verdict(outcome=Outcome.FAILED, can_move=True, error=NoWorkerAvailableError, is_lost=True)

_BY_REASON = {
    "AT_CAPACITY": _verdict(Outcome.REFUSED, KvExhaustedError, can_move=True),
    "CHECKPOINT_MISMATCH": _verdict(Outcome.REFUSED, NoWorkerAvailableError, can_move=True),
    "CONSTRAINT_REJECTED": _verdict(Outcome.IGNORED, ConstraintRejectedError),
    "CONSTRAINT_VIOLATED": _verdict(Outcome.FAILED, ConstraintViolatedError),
    # The caller chose the deadline. Workers that do not answer are found by their load reports.
    "DEADLINE_EXCEEDED": _verdict(Outcome.IGNORED, DeadlineExceededError),
    "ENGINE_DEAD": _LOST,
    "ENGINE_ERROR": _verdict(Outcome.FAILED, EngineFailedError),
    "INTERNAL": _verdict(Outcome.FAILED, InternalError),
    "INVALID_JOB": _verdict(Outcome.IGNORED, InternalError),
    "NOT_SERVING": _LOST,
    # It is the client that does not read.
    "READER_BEHIND": _verdict(Outcome.IGNORED, ClientTooSlowError),
}
_BY_CODE = {
    # A server that is stopped in the middle of a call cancels it; our own cancellation never comes this way.
    "CANCELLED": _LOST,
    "DEADLINE_EXCEEDED": _verdict(Outcome.IGNORED, DeadlineExceededError),
    "UNAVAILABLE": _LOST,
}
_UNFORESEEN = _verdict(Outcome.FAILED, InternalError)


def judge(error: RpcError) -> Verdict:
    """What ``error`` of a worker means."""
    if error.domain == WORKER_DOMAIN and error.reason in _BY_REASON:
        return _BY_REASON[error.reason]
    return _BY_CODE.get(error.code.name, _UNFORESEEN)


def client_error(error: RpcError, *, tokens_sent: int | None) -> GatewayError:
    """What the client is told of a worker's ``error``; ``tokens_sent`` is None as long as it has seen nothing."""
    verdict = judge(error)
    if verdict.can_move and tokens_sent is not None:
        return StreamInterruptedError(
            f"the worker was lost after {tokens_sent} tokens", metadata={"tokens_sent": str(tokens_sent)}
        )
    sent = {} if tokens_sent is None else {"tokens_sent": str(tokens_sent)}
    if verdict.error is ConstraintRejectedError:
        named = "; ".join(f"{violation.field}: {violation.description}" for violation in error.violations)
        return ConstraintRejectedError(f"constraint rejected: {named}", violations=error.violations)
    if verdict.error is KvExhaustedError:
        return kv_exhausted(error.retry_after_s, workers_asked=1)
    if verdict.error is NoWorkerAvailableError:
        return no_worker_available()
    return verdict.error(_MESSAGES[verdict.error], metadata=sent)


def kv_exhausted(retry_after_s: float | None, *, workers_asked: int) -> KvExhaustedError:
    """No worker that was asked has room; ``retry_after_s`` is the best hint that they gave."""
    return KvExhaustedError(
        f"none of {workers_asked} workers has KV blocks for the request now",
        metadata={"workers_asked": str(workers_asked)},
        retry_after_s=_RETRY_AFTER_S if retry_after_s is None else retry_after_s,
    )


def no_worker_available() -> NoWorkerAvailableError:
    """No worker serves the model, as far as this gateway can tell."""
    return NoWorkerAvailableError("no worker serves the model at present", retry_after_s=_RETRY_AFTER_S)


# A worker's own words may name what a client has no business with.
_MESSAGES: dict[type[GatewayError], str] = {
    ClientTooSlowError: "the client has not read, and no more can be held for it",
    ConstraintViolatedError: "the output does not have the form asked for",
    DeadlineExceededError: "the deadline passed before the output was complete",
    EngineFailedError: "the engine failed on this request",
    InternalError: "internal error; see the server's log",
}
