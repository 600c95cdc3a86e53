"""What the sim engine says: tokens as a function of seed and position, and their text.

The token at position ``p`` of a sequence, counted from the first token of the prompt, is ``f(seed, p)``, and so is the
decision to end there. The prompt's content plays no part, only its length. So anybody can tell which tokens to expect,
and a request whose prompt is an earlier prompt plus the tokens that came of it is continued as if nothing had happened:
without a gap or a repetition, on any worker with the same model. A request's own seed must travel with it for that; a
request without one takes the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokenizers import Tokenizer

from worker.engine import TokenLogprob

_MASK = 2**64 - 1
_END_STREAM = 1  # beside 0, the stream of random numbers that chooses tokens


def _mix(seed: int, position: int, stream: int) -> int:
    """64 random bits of a place in a sequence (SplitMix64, by Steele, Lea and Flood, "Fast splittable PRNGs", 2014)."""
    bits = (seed * 2 + stream + (position + 1) * 0x9E3779B97F4A7C15) & _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


class SimLanguage:
    """The tokens that the sim engine chooses among, and how often it ends a text of its own accord."""

    def __init__(self, tokenizer_json: bytes, *, seed: int, mean_output_tokens: int | None) -> None:
        """Without ``mean_output_tokens`` no text ends before its limit.

        Raises ``ValueError`` for what is no tokenizer, and where its tokens have no text of their own: those of a
        byte-level one do.
        """
        try:
            tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        except Exception as error:  # tokenizers has no error of its own
            raise ValueError(f"tokenizer.json: {error}") from error
        special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self.vocabulary_size = tokenizer.get_vocab_size()
        self._texts = [
            "" if token_id in special else tokenizer.decode([token_id]) for token_id in range(self.vocabulary_size)
        ]
        # Words, to be readable; in ASCII, so that no token is part of a character and a sequence's text is the texts of
        # its tokens laid end to end.
        self.token_ids = [
            token_id
            for token_id, text in enumerate(self._texts)
            if text.isascii() and text[:1] == " " and text[1:].isalpha()
        ]
        if not self.token_ids or tokenizer.decode(self.token_ids) != "".join(map(self.text, self.token_ids)):
            raise ValueError("the sim engine needs a byte-level tokenizer: its tokens' texts have to add up")
        self._seed = seed
        self._end_below = 0 if mean_output_tokens is None else _MASK // mean_output_tokens

    def token(self, seed: int | None, position: int) -> int:
        """The token at ``position`` of a sequence."""
        return self.token_ids[_mix(self._seed if seed is None else seed, position, 0) % len(self.token_ids)]

    def ends(self, seed: int | None, position: int) -> bool:
        """Whether the text ends before ``position``: with one chance in ``mean_output_tokens``."""
        return _mix(self._seed if seed is None else seed, position, _END_STREAM) < self._end_below

    def text(self, token_id: int) -> str:
        """The token's text; empty for special tokens."""
        return self._texts[token_id]

    def logprobs(self, token_ids: Sequence[int], alternatives: int) -> list[TokenLogprob]:
        """Log probabilities as if each token had probability 1/2 and the ids after it 1/4, 1/8 and so on."""
        return [self._logprob(token_id, alternatives) for token_id in token_ids]

    def _logprob(self, token_id: int, alternatives: int) -> TokenLogprob:
        ranked = ((token_id + rank) % self.vocabulary_size for rank in range(alternatives))
        return TokenLogprob(
            token_id=token_id,
            token=self.text(token_id),
            logprob=-math.log(2),
            top=tuple((other, self.text(other), -(rank + 1) * math.log(2)) for rank, other in enumerate(ranked)),
        )
