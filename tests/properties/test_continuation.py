from __future__ import annotations

import random

from grpc import StatusCode
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.policy.continuation import Continuation, ContinuationLimits, Obstacle
from tidegate.rpc.status import WORKER_DOMAIN, RpcError

_LIMITS = ContinuationLimits(max_losses=5, max_fruitless_losses=2, max_pause_s=10.0)
_WORKERS = ("a", "b", "c")


def _error(code: StatusCode, reason: str = "") -> RpcError:
    return RpcError(code=code, reason=reason, domain=WORKER_DOMAIN if reason else "", message="")


_LOST = _error(StatusCode.UNAVAILABLE)
_FULL = _error(StatusCode.RESOURCE_EXHAUSTED, "AT_CAPACITY")
_FINAL = _error(StatusCode.INTERNAL, "CONSTRAINT_VIOLATED")


class ContinuationMachine(RuleBasedStateMachine):
    """Loses workers, with and without tokens in between, and waits for others."""

    @initialize(seed=st.integers())
    def start(self, seed: int) -> None:
        self.continuation = Continuation(_LIMITS, random.Random(seed))
        self.now = 100.0
        self.tokens = 0
        self.losses = self.fruitless = self.productive = 0
        self.paused_at: float | None = None
        self.is_over = False

    @precondition(lambda self: not self.is_over)
    @rule(worker=st.sampled_from(_WORKERS), new_tokens=st.integers(0, 2), is_full=st.booleans())
    def lose(self, worker: str, new_tokens: int, is_full: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        if is_full:
            new_tokens = 0  # a refusal comes before any token
        self.tokens += new_tokens
        if new_tokens:
            self.productive += 1
            self.fruitless = 0
            self.paused_at = None
        self.losses += not is_full
        self.fruitless += not is_full
        self.paused_at = self.now if self.paused_at is None else self.paused_at
        error = _FULL if is_full else _LOST
        obstacle = self.continuation.lose(worker, error, tokens=self.tokens, now=self.now)
        is_too_often = self.losses > _LIMITS.max_losses or self.fruitless > _LIMITS.max_fruitless_losses
        assert (Obstacle.LOST_TOO_OFTEN if is_too_often else None) == obstacle
        assert worker in self.continuation.asked
        self.is_over = is_too_often

    @precondition(lambda self: not self.is_over)
    @rule()
    def find_no_worker(self) -> None:
        wait_s = self.continuation.wait_s(now=self.now)
        self.paused_at = self.now if self.paused_at is None else self.paused_at
        is_over = self.now - self.paused_at >= _LIMITS.max_pause_s
        assert is_over == (wait_s is None)
        self.is_over = is_over
        if wait_s is not None:
            assert 0 < wait_s <= min(0.75, self.paused_at + _LIMITS.max_pause_s - self.now)
            assert not self.continuation.asked
            self.now += wait_s

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def workers_that_gave_tokens_are_counted(self) -> None:
        assert self.productive == self.continuation.count


TestContinuation = ContinuationMachine.TestCase


def test_what_no_other_worker_would_do_better_is_final() -> None:
    """Nobody else is asked after an error of the request itself."""
    continuation = Continuation(_LIMITS, random.Random(1))
    assert Obstacle.FINAL is continuation.lose("a", _FINAL, tokens=1, now=0.0)
