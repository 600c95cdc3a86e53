from __future__ import annotations

from collections.abc import Sequence

import grpc
import pytest

from tidegate.client import TidegateError
from tidegate.client.explain import REMEDIES, ExitCode, exit_code, explain
from tidegate.inference.v1.error_reason_pb2 import ErrorReason
from tidegate.rpc.status import RpcError, Violation


def refused(
    code: grpc.StatusCode,
    reason: str,
    message: str = "",
    retry_after_s: float | None = None,
    violations: Sequence[Violation] = (),
) -> TidegateError:
    """As a gateway does it."""
    return TidegateError(
        RpcError(
            code=code,
            reason=reason,
            domain="tidegate.inference.v1",
            message=message,
            violations=violations,
            retry_after_s=retry_after_s,
        )
    )


def test_every_reason_has_a_remedy() -> None:
    """A reason that is added to the API needs words for the person at the terminal."""
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118

    assert reasons == REMEDIES.keys()


def test_an_error_is_told_with_fields_wait_and_remedy() -> None:
    """Everything that helps is said, and said once."""
    violations = [
        Violation(field="model", description="is required"),
        Violation(field="sampling.top_p", description="must be above 0"),
    ]
    message = "invalid request: model: is required"
    error = refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", message, 1.5, violations)

    expected = [
        "INVALID_REQUEST: invalid request: model: is required",
        "  sampling.top_p: must be above 0",
        "  The server suggests to retry in 1.5 s.",
        "  Correct what is named above.",
    ]
    assert expected == list(explain(error))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, ExitCode.REFUSED),
        (grpc.StatusCode.NOT_FOUND, ExitCode.REFUSED),
        (grpc.StatusCode.FAILED_PRECONDITION, ExitCode.REFUSED),
        (grpc.StatusCode.ABORTED, ExitCode.FAILED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ExitCode.BUSY),
        (grpc.StatusCode.UNIMPLEMENTED, ExitCode.UNAVAILABLE),
        (grpc.StatusCode.UNAVAILABLE, ExitCode.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ExitCode.DEADLINE),
        (grpc.StatusCode.INTERNAL, ExitCode.SERVER_DEFECT),
        (grpc.StatusCode.UNKNOWN, ExitCode.SERVER_DEFECT),
    ],
)
def test_exit_codes_tell_whose_turn_it_is(code: grpc.StatusCode, expected: ExitCode) -> None:
    """A script can tell a bad request from a full server from a broken one."""
    assert expected is exit_code(refused(code, ""))


@pytest.mark.parametrize(("retry_after_s", "remedy", "code"), [(None, "Waiting", 3), (30.0, "Your quota", 4)])
def test_no_wait_helps_a_request_that_is_larger_than_its_quota(
    retry_after_s: float | None, remedy: str, code: int
) -> None:
    """The server names none then."""
    error = refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "too much", retry_after_s)
    assert (remedy, code) == (list(explain(error))[-1].strip()[: len(remedy)], exit_code(error))
