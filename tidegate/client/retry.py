"""Whether and when a call that failed before its first message is tried again.

gRPC core can retry by itself, but sleeps through a deadline that ends before the server's hint does, and then reports
DEADLINE_EXCEEDED in place of the server's reason. Here such a call fails at once, with the reason.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from grpc import StatusCode

from tidegate.rpc.status import RpcError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """At most ``max_attempts`` calls. Waits are the server's hint, or exponential where it gives none."""

    max_attempts: int = 4
    initial_backoff_s: float = 0.2
    max_backoff_s: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a policy that could not make a call."""
        if self.max_attempts < 1:
            msg = f"max_attempts must be at least 1, not {self.max_attempts}"
            raise ValueError(msg)

    def wait_s(self, error: RpcError, *, attempt: int, remaining_s: float, rng: random.Random) -> float | None:
        """Seconds to wait before the next attempt; None when ``error`` is final.

        ``attempt`` counts from 1; ``remaining_s`` is what is left of the deadline. Waits carry up to a quarter of
        jitter, so that clients refused together do not return together; a hint is only ever lengthened.
        """
        if attempt >= self.max_attempts:
            return None
        if error.code in {StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED} and error.retry_after_s is not None:
            wait_s = error.retry_after_s * rng.uniform(1.0, 1.25)
        elif error.code is StatusCode.UNAVAILABLE:
            wait_s = min(self.max_backoff_s, self.initial_backoff_s * 2 ** (attempt - 1)) * rng.uniform(0.75, 1.0)
        else:
            return None
        return wait_s if wait_s < remaining_s else None
