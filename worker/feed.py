"""What may wait inside the engine: enough that no step runs short of prompts, and no more. Pure.

Whoever waits in the engine waits behind all before it, for this engine alone. In a gateway it waits for any worker, and
an urgent request can still pass it.
"""

from __future__ import annotations

import math

from worker.recent_quantile import RecentQuantile

_LEAST_REQUESTS = 4
# Prompts shorter than this share of all fill a step the slowest.
_SHORT_PROMPT_QUANTILE = 0.25


class Feed:
    """Bounds of the engine's own line: by the lengths of the prompts that come, and the pace at which it takes them."""

    def __init__(self, *, step_tokens: int, max_requests: int, max_backlog_s: float) -> None:
        """``step_tokens``: most tokens of a step. The others bound what may wait, in requests and in time."""
        self.prefill_tokens_per_s = 0.0  # as measured, by whoever measures it; 0 before
        self._step_tokens = step_tokens
        self._max_requests = max_requests
        self._max_backlog_s = max_backlog_s
        self._prompts = RecentQuantile()

    @property
    def requests(self) -> int:
        """Requests that may be inside beyond those that run: as many as a step could take, were there room for all."""
        prompt_tokens = self._prompts.value(_SHORT_PROMPT_QUANTILE)
        if prompt_tokens is None:
            return self._max_requests
        return min(self._max_requests, max(_LEAST_REQUESTS, math.ceil(self._step_tokens / max(1.0, prompt_tokens))))

    @property
    def backlog_tokens(self) -> int | None:
        """Prompt tokens that may be waiting to be computed; None, without bound, before the pace is known."""
        if not self.prefill_tokens_per_s:
            return None
        return max(self._step_tokens, math.floor(self.prefill_tokens_per_s * self._max_backlog_s))

    def learn(self, prompt_tokens: int) -> None:
        """A request with such a prompt has come."""
        self._prompts.add(prompt_tokens)
