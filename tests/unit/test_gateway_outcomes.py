from __future__ import annotations

import pytest
from grpc import StatusCode

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
from gateway.policy.attempts import Attempts
from gateway.policy.outcomes import Outcome, client_error, judge
from tidegate.rpc.status import INFERENCE_DOMAIN, WORKER_DOMAIN, RpcError
from tidegate.worker.v1 import worker_service_pb2


def error(
    reason: str = "",
    code: StatusCode = StatusCode.INTERNAL,
    *,
    domain: str = WORKER_DOMAIN,
    retry_after_s: float | None = None,
) -> RpcError:
    """An error with a worker's ErrorInfo, unless ``domain`` says otherwise."""
    return RpcError(code=code, reason=reason, domain=domain, message="said", retry_after_s=retry_after_s)


LOST = error(code=StatusCode.UNAVAILABLE, domain="")
FULL = error("AT_CAPACITY", StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.5)

# Reason, outcome, whether another worker may do better, what the client is told before and after the first event.
TABLE = {
    "AT_CAPACITY": (Outcome.REFUSED, True, KvExhaustedError, StreamInterruptedError),
    "CHECKPOINT_MISMATCH": (Outcome.REFUSED, True, NoWorkerAvailableError, StreamInterruptedError),
    "CONSTRAINT_REJECTED": (Outcome.IGNORED, False, ConstraintRejectedError, ConstraintRejectedError),
    "CONSTRAINT_VIOLATED": (Outcome.FAILED, False, ConstraintViolatedError, ConstraintViolatedError),
    "DEADLINE_EXCEEDED": (Outcome.IGNORED, False, DeadlineExceededError, DeadlineExceededError),
    "ENGINE_DEAD": (Outcome.FAILED, True, NoWorkerAvailableError, StreamInterruptedError),
    "ENGINE_ERROR": (Outcome.FAILED, False, EngineFailedError, EngineFailedError),
    "INTERNAL": (Outcome.FAILED, False, InternalError, InternalError),
    "INVALID_JOB": (Outcome.IGNORED, False, InternalError, InternalError),
    "NOT_SERVING": (Outcome.FAILED, True, NoWorkerAvailableError, StreamInterruptedError),
    "READER_BEHIND": (Outcome.IGNORED, False, ClientTooSlowError, ClientTooSlowError),
}


@pytest.mark.parametrize("reason", TABLE)
def test_each_reason_of_a_worker_has_its_meaning(reason: str) -> None:
    """As docs/request-lifecycle.md has it."""
    outcome, can_move, before, after = TABLE[reason]
    verdict = judge(error(reason))
    assert (outcome, can_move) == (verdict.outcome, verdict.can_move)
    assert before is type(client_error(error(reason), tokens_sent=None))
    assert after is type(client_error(error(reason), tokens_sent=3))


def test_every_reason_of_the_contract_is_in_the_table() -> None:
    """A new reason has to be given a meaning."""
    names = [name.removeprefix("WORKER_ERROR_REASON_") for name in worker_service_pb2.WorkerErrorReason.keys()]  # noqa: SIM118 - no mapping
    assert {*TABLE, "UNSPECIFIED"} == set(names)


@pytest.mark.parametrize(
    ("code", "outcome", "told"),
    [
        (StatusCode.UNAVAILABLE, Outcome.FAILED, NoWorkerAvailableError),
        (StatusCode.CANCELLED, Outcome.FAILED, NoWorkerAvailableError),
        (StatusCode.DEADLINE_EXCEEDED, Outcome.IGNORED, DeadlineExceededError),
        (StatusCode.UNIMPLEMENTED, Outcome.FAILED, InternalError),
        (StatusCode.RESOURCE_EXHAUSTED, Outcome.FAILED, InternalError),
        (StatusCode.UNKNOWN, Outcome.FAILED, InternalError),
    ],
)
def test_errors_of_the_transport_go_by_their_code(code: StatusCode, outcome: Outcome, told: type[GatewayError]) -> None:
    """They have no ErrorInfo."""
    lost = error(code=code, domain="")
    assert (outcome, told) == (judge(lost).outcome, type(client_error(lost, tokens_sent=None)))


def test_reasons_of_another_domain_are_not_a_workers() -> None:
    """A proxy between gateway and worker may speak for itself."""
    foreign = error("AT_CAPACITY", StatusCode.UNAVAILABLE, domain=INFERENCE_DOMAIN)
    assert Outcome.FAILED is judge(foreign).outcome


def test_a_workers_words_do_not_reach_the_client() -> None:
    """They may name files or addresses."""
    for reason in TABLE:
        assert "said" not in str(client_error(error(reason), tokens_sent=None))


def test_a_refusal_may_be_followed_by_any_number_of_attempts() -> None:
    """Each worker may be asked again when it has room, whatever the retry budget."""
    attempts = Attempts()
    for number in range(5):
        attempts.record(f"w{number}", FULL)
        assert attempts.can_move_on(has_budget=False)
    assert (5, frozenset()) == (attempts.count, attempts.unfit)


def test_a_worker_that_failed_is_not_asked_again() -> None:
    """The next attempt is for another one."""
    attempts = Attempts()
    attempts.record("w0", FULL)
    attempts.record("w1", LOST)
    assert {"w1"} == attempts.unfit


def test_workers_that_were_lost_may_be_asked_when_no_other_is_left() -> None:
    """They may be back by then; those that failed in another way stay unfit."""
    attempts = Attempts()
    attempts.record("w0", LOST)
    attempts.record("w1", RpcError(code=StatusCode.INTERNAL, reason="ENGINE_ERROR", domain=WORKER_DOMAIN, message=""))
    assert attempts.forgive()
    assert {"w1"} == attempts.unfit
    assert not attempts.forgive()


@pytest.mark.parametrize("has_budget", [True, False])
def test_a_failure_may_be_followed_by_another_attempt_inside_the_budget(*, has_budget: bool) -> None:
    """The budget decides."""
    attempts = Attempts()
    attempts.record("w0", LOST)
    assert has_budget == attempts.can_move_on(has_budget=has_budget)


def test_two_failures_end_the_walk() -> None:
    """Refusals between them do not help."""
    attempts = Attempts()
    for worker, failure in (("w0", LOST), ("w1", FULL), ("w2", LOST)):
        attempts.record(worker, failure)
    assert not attempts.can_move_on(has_budget=True)


def test_the_best_hint_of_all_refusals_is_passed_on() -> None:
    """A worker without a hint does not take it away."""
    attempts = Attempts()
    for number, hint in enumerate((0.7, None, 0.3)):
        attempts.record(f"w{number}", error("AT_CAPACITY", retry_after_s=hint))
    told = attempts.error()
    assert (KvExhaustedError, 0.3, {"workers_asked": "3"}) == (type(told), told.retry_after_s, told.metadata)


def test_nobody_asked_means_nobody_there() -> None:
    """The fleet had no candidate at all."""
    assert NoWorkerAvailableError is type(Attempts().error())
