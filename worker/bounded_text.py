"""The text of an output's tokens as ``tokenizers`` tells it, at a bounded cost for each.

A ``DecodeStream`` decodes all tokens once more that have come since it last had text to show. Tokens that are no
characters can be thousands, and a client can ask for them by a logit bias: at 4,000 each takes a third of a millisecond
on the event loop, in a step in which every other stream waits for its token.
"""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from worker.token_text import TokenText

# No character is as long.
_MOST_SILENT_TOKENS = 32


class BoundedStream:
    """Stands where a ``DecodeStream`` does. Behind so many tokens without a text it tells it as ``TokenText`` does."""

    __slots__ = ("_silent", "_stream", "_text")

    def __init__(self, stream: DecodeStream) -> None:
        self._stream = stream
        self._silent: list[int] = []  # tokens, the latest, of which nothing has been shown
        self._text: TokenText | None = None

    def step(self, tokenizer: Tokenizer, token_id: int) -> str | None:
        """As ``DecodeStream.step``: what the token adds, if anything."""
        if self._text is not None:
            return self._text.decode(token_id)
        text: str | None = self._stream.step(tokenizer, token_id)
        if text:
            if self._silent:
                self._silent.clear()
            return text
        self._silent.append(token_id)
        if len(self._silent) < _MOST_SILENT_TOKENS:
            return None
        self._text = TokenText(tokenizer, ())
        return "".join(map(self._text.decode, self._silent))
