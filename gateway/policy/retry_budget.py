"""Bounds retries by the share of calls that fail (gRFC A6, "Throttling Retry Attempts").

A counter starts full. A failure takes one token, a success gives a tenth back; below half there are no retries. So a
single bad worker is stepped around at once, while a fleet that fails as a whole is not sent its load twice.
"""

from __future__ import annotations

_MAX_TOKENS = 10.0
_TOKEN_RATIO = 0.1


class RetryBudget:
    """One counter for all workers that could stand in for one another."""

    def __init__(self, *, max_tokens: float = _MAX_TOKENS, token_ratio: float = _TOKEN_RATIO) -> None:
        """``token_ratio`` is the part of a token that a success gives back."""
        if max_tokens <= 0 or token_ratio <= 0:
            raise ValueError("max_tokens and token_ratio are above 0")
        self._max_tokens = max_tokens
        self._token_ratio = token_ratio
        self._tokens = max_tokens

    @property
    def can_retry(self) -> bool:
        """Whether a failed attempt may be followed by another one."""
        return self._tokens > self._max_tokens / 2

    def succeed(self) -> None:
        """An attempt succeeded."""
        self._tokens = min(self._max_tokens, self._tokens + self._token_ratio)

    def fail(self) -> None:
        """An attempt failed; a refusal for want of capacity is no failure."""
        self._tokens = max(0.0, self._tokens - 1.0)
