"""What an answer's reader notes down, whichever way the tokens come; all figures are made of it afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. ``engine_s`` is what of the time to the first token was spent in the engine, by its own clock."""

    sent_at: float
    arrivals: Sequence[tuple[float, int]]  # when, and how many tokens; never empty
    engine_s: float | None = None

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.arrivals[0][0] - self.sent_at

    def gaps_s(self, since: float = float("-inf"), until: float = float("inf")) -> list[float]:
        """What each token behind the first came after the one before it; those that came together share it."""
        return [
            gap_s
            for (before, _), (at, tokens) in zip(self.arrivals, self.arrivals[1:], strict=False)
            if since < at <= until
            for gap_s in [(at - before) / tokens] * tokens
        ]

    def tokens(self, since: float = float("-inf"), until: float = float("inf")) -> int:
        """How many tokens came."""
        return sum(tokens for at, tokens in self.arrivals if since < at <= until)


# Sends a prompt and reads the answer, of as many tokens as are asked for, to its end.
Read = Callable[[list[int], int], Awaitable[Answer]]
