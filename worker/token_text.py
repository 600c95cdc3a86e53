"""The text that tokens add to a prompt, one by one: for an output that another worker began, which vLLM cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix

from tokenizers import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Tokens are decoded together with some before them: spaces and characters may lie across the border.
_CONTEXT_TOKENS = 6


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
        if text.endswith(_REPLACEMENT):
            return ""
        # A prompt that ends inside a character gets it completed here.
        new = text[len(commonprefix((text, self._shown))) :]  # noqa: RUF071 - of texts, not of paths
        if not new:
            return ""
        self._token_ids = self._token_ids[self._settled :]
        self._shown = self._decode()
        self._settled = len(self._token_ids)
        return new

    def _decode(self) -> str:
        text: str = self._tokenizer.decode(self._token_ids)  # without special tokens
        return text
