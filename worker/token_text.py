"""The text that tokens add to a prompt, one by one: for an output that another worker began, which vLLM cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix

from tokenizers import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Tokens are decoded together with some before them: spaces and characters may lie across the border.
_CONTEXT_TOKENS = 6
# A character has four bytes at most, and so four tokens. After so many without a whole one they are no characters at
# all, and are not decoded again with each that follows: a client can ask for thousands of them.
_MOST_UNSETTLED_TOKENS = 32


class TokenText:
    """Decodes as vLLM does, without showing any of the prompt."""

    def __init__(self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._token_ids = list(prompt_token_ids[-_CONTEXT_TOKENS:])
        self._shown = self._decode()
        self._settled = len(self._token_ids)  # tokens whose text is in ``_shown``

    def decode(self, token_id: int) -> str:
        """What ``token_id`` adds; nothing while a character is incomplete."""
        self._token_ids.append(token_id)
        text = self._decode()
        is_long = len(self._token_ids) - self._settled >= _MOST_UNSETTLED_TOKENS
        is_open = text.endswith(_REPLACEMENT)
        if is_open and not is_long:
            return ""
        # A prompt that ends inside a character gets it completed here.
        new = text[len(commonprefix((text, self._shown))) :]  # noqa: RUF071 - of texts, not of paths
        if is_open:
            new = new[:-1]  # the last one may yet become a character
        if new:
            self._token_ids = self._token_ids[self._settled :]
            shown = self._decode()
            self._shown = shown[: len(shown) - is_open]
            self._settled = len(self._token_ids)
        elif is_long:
            unsettled = self._token_ids[self._settled :]
            self._token_ids[self._settled :] = [token for token in unsettled if self._tokenizer.decode([token])]
        return new

    def _decode(self) -> str:
        text: str = self._tokenizer.decode(self._token_ids)  # without special tokens
        return text
