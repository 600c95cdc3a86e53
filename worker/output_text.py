"""The text of one output, token by token: cut at its stop strings, and without what the client has already.

An output that another worker began is told once more from its first token, by the same rules. So the text goes on where
the client's ends, whatever had been held back there: text that may begin a stop string, or part of a character.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.engine import Continued, Sampling
from worker.stop_text import StopText


class OutputText:
    """Feed it the tokens in order until ``stop`` is set."""

    def __init__(self, decode: Callable[[int], str], sampling: Sampling, continued: Continued | None = None) -> None:
        """``decode`` gives the text that each further token adds; it is called once for each, in order."""
        self.tokens = 0
        self.stop: str | None = None
        self.continued_text = ""
        self._decode = decode
        self._sampling = sampling
        self._stop_text = StopText(sampling.stop_strings)
        self._rest = ""
        if continued is not None:
            told = "".join(map(self._push, continued.token_ids)).encode()
            # A well-behaved gateway counts whole characters.
            self.continued_text = told[: continued.text_bytes].decode(errors="ignore")
            self._rest = told[continued.text_bytes :].decode(errors="ignore")

    @property
    def is_over(self) -> bool:
        """Whether the tokens so far are the whole output, by its limit or a stop string."""
        return self.stop is not None or self.tokens >= self._sampling.max_output_tokens

    def push(self, token_id: int) -> str:
        """Add a token; returns the text that may be shown now. Sets ``stop`` when it completes a stop string."""
        rest, self._rest = self._rest, ""
        return rest + self._push(token_id)

    def flush(self) -> str:
        """What is left to show once no token will come."""
        rest, self._rest = self._rest, ""
        return rest + self._stop_text.flush()

    def _push(self, token_id: int) -> str:
        self.tokens += 1
        text = self._decode(token_id)
        if self.tokens <= self._sampling.min_output_tokens:
            return text  # up to here a stop string is ordinary text
        shown, self.stop = self._stop_text.push(text)
        return shown
