"""Whether, and when, a generation that lost its worker after the first token goes on with another one.

Losing a worker costs all of its streams at once, so that no budget of failures bounds this, but each request's own
course: a loss that comes after new tokens is the worker's affair and starts afresh; losses without a token between them
speak against the request, which may be what ends its workers. A pause ends when another worker answers, and is given up
when it has lasted too long.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from gateway.errors import GatewayError, StreamInterruptedError
from gateway.policy.outcomes import Outcome, client_error, judge
from tidegate.rpc.status import RpcError

# Between two looks for a worker, in seconds: the first wait, and the longest.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.5
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuationLimits:
    """What one request may be given. A pause is the time without a token, in seconds.

    ``max_fruitless_losses`` counts losses since the last token, the one that interrupted the output among them.
    """

    max_losses: int = 6
    max_fruitless_losses: int = 2
    max_pause_s: float = 10.0


class Obstacle(Enum):
    """Why a generation is not continued; the value is told to the client."""

    FINAL = "final"  # no other worker would do better; the error itself says why
    LOST_TOO_OFTEN = "lost_too_often"
    PAUSED_TOO_LONG = "paused_too_long"
    TOO_LONG_TO_KEEP = "too_long_to_keep"
    NOT_SUPPORTED = "not_supported"  # by the worker that was lost, and so probably by none


class Continuation:
    """One request's course from worker to worker, from the first loss on. ``asked`` are those not to ask just now."""

    __slots__ = ("_fruitless", "_limits", "_losses", "_paused_at", "_rng", "_tokens", "_wait_s", "asked", "count")

    def __init__(self, limits: ContinuationLimits, rng: random.Random) -> None:
        self.asked = _NOBODY
        self.count = 0  # of workers that gave tokens and were lost
        self._limits = limits
        self._rng = rng
        self._losses = 0
        self._fruitless = 0
        self._tokens = 0
        self._paused_at: float | None = None
        self._wait_s = _FIRST_WAIT_S

    def lose(self, worker_id: str, error: RpcError, *, tokens: int, now: float) -> Obstacle | None:
        """The attempt on ``worker_id`` ended in ``error`` when the client had ``tokens``. None: go on."""
        verdict = judge(error)
        if not verdict.can_move:
            return Obstacle.FINAL
        if tokens > self._tokens:
            self._tokens = tokens
            self.count += 1
            self._fruitless = 0
            self._paused_at = None
            self.asked = _NOBODY
        self.asked |= {worker_id}
        if self._paused_at is None:
            self._paused_at = now
            self._wait_s = _FIRST_WAIT_S
        if verdict.outcome is Outcome.FAILED:
            self._losses += 1
            self._fruitless += 1
        limits = self._limits
        if self._losses > limits.max_losses or self._fruitless > limits.max_fruitless_losses:
            return Obstacle.LOST_TOO_OFTEN
        return None

    def wait_s(self, *, now: float) -> float | None:
        """No worker is left to ask: how long to wait before all may be asked again. None: the pause was too long."""
        if self._paused_at is None:
            self._paused_at = now
        left_s = self._paused_at + self._limits.max_pause_s - now
        if left_s <= 0:
            return None
        wait_s = min(left_s, self._wait_s * self._rng.uniform(0.5, 1.5))
        self._wait_s = min(_LONGEST_WAIT_S, 2 * self._wait_s)
        self.asked = _NOBODY
        return wait_s


def interruption(obstacle: Obstacle, error: RpcError, *, tokens: int) -> GatewayError:
    """What the client is told of a generation that is not continued after ``error``."""
    return (
        client_error(error, tokens_sent=tokens) if obstacle is Obstacle.FINAL else interrupted(obstacle, tokens=tokens)
    )


def interrupted(obstacle: Obstacle, *, tokens: int) -> StreamInterruptedError:
    """The generation ends in the middle."""
    return StreamInterruptedError(
        f"the worker was lost after {tokens} tokens ({obstacle.value})",
        metadata={"tokens_sent": str(tokens), "not_continued": obstacle.value},
    )
