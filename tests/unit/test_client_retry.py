from __future__ import annotations

import random

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from tidegate.client import RetryPolicy
from tidegate.rpc.status import RpcError


def _error(code: StatusCode, retry_after_s: float | None = None) -> RpcError:
    return RpcError(code=code, reason="", domain="", message="", retry_after_s=retry_after_s)


def _wait_s(
    code: StatusCode, retry_after_s: float | None = None, *, attempt: int = 1, remaining_s: float = 60.0
) -> float | None:
    policy = RetryPolicy()
    return policy.wait_s(_error(code, retry_after_s), attempt=attempt, remaining_s=remaining_s, rng=random.Random(1))


@pytest.mark.parametrize(
    "code",
    [
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.INTERNAL,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.CANCELLED,
    ],
)
def test_what_a_repetition_cannot_cure_is_final(code: StatusCode) -> None:
    """Not even a hint makes such an error worth another attempt."""
    assert _wait_s(code, 0.1) is None


def test_exhaustion_without_a_hint_is_final() -> None:
    """GRPC core itself says RESOURCE_EXHAUSTED to an oversize message; sending it again changes nothing."""
    assert _wait_s(StatusCode.RESOURCE_EXHAUSTED) is None


def test_unavailable_backs_off_and_ends() -> None:
    """Waits double from attempt to attempt, up to the last one."""
    first, second, third, fourth = (_wait_s(StatusCode.UNAVAILABLE, attempt=attempt) for attempt in (1, 2, 3, 4))

    assert first is not None
    assert second is not None
    assert third is not None
    assert first < second < third
    assert fourth is None


@given(
    code=st.sampled_from([StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED]),
    hint_s=st.none() | st.floats(0, 1e6),
    attempt=st.integers(1, 10),
    remaining_s=st.floats(-10, 1e6),
    seed=st.integers(0, 1000),
)
def test_waits_keep_to_hint_deadline_and_attempts(
    code: StatusCode, hint_s: float | None, attempt: int, remaining_s: float, seed: int
) -> None:
    """A wait is never shorter than the hint, never reaches the deadline, and never follows the last attempt."""
    policy = RetryPolicy(max_attempts=3)

    wait_s = policy.wait_s(_error(code, hint_s), attempt=attempt, remaining_s=remaining_s, rng=random.Random(seed))

    assert wait_s is None or (hint_s or 0) <= wait_s < remaining_s
    assert wait_s is None or attempt < policy.max_attempts


def test_a_policy_without_attempts_is_refused() -> None:
    """It could not make a call."""
    with pytest.raises(ValueError, match="max_attempts"):
        RetryPolicy(max_attempts=0)
