"""Encodes text as the model's own tokenizer does, with or without its control tokens.

Three tokenizers are kept. One is the model's own. A copy of it knows the control tokens in private spelling only: to
the copy ``<|im_end|>`` is ordinary text, encoded in one piece with all that stands before and behind it. The finder
has the same added tokens and no vocabulary: it tells which of them a text has, in a hundredth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from gateway.control_tokens import ControlTokens, uses_reserved_characters
from gateway.plain_prompts import PlainPrompts, stand_alone
from gateway.segment_cache import Encoded, SegmentCache, dividers
from gateway.word_cache import WordCache, cuts_before_words
from tidegate.rpc.token_ids import packed

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class PromptTokenizer:
    """One model's tokenizer. Safe to use from several threads; encoding releases the GIL."""

    def __init__(self, tokenizer_json: bytes, config: Mapping[str, Any], chat_template: str) -> None:
        """``config`` is tokenizer_config.json. Raises ``ValueError`` for files that are no tokenizer."""
        self.named_tokens = _named_tokens(config)
        self._own = _own_tokenizer(tokenizer_json, config, self.named_tokens)
        added = self._own.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special} | set(self.named_tokens.values())
        ordinary = {token.content for token in added} - special
        structural = {token for token in ordinary if token.strip() and token in chat_template}
        self.control_tokens = ControlTokens(sorted(special), sorted(structural))
        unknown = _unknown_token(self._own, self.named_tokens)
        self._special_ids = frozenset(_id_of(token, self._own) for token in special if token != unknown)
        self._respelled_ids = self._special_ids | {_id_of(token, self._own) for token in structural}
        self._copy, self._own_ids = _copy_with(self.control_tokens.spellings(), self._own)
        self._finder, self._found_ids = _finder_of(self._own, special)
        self._beginning_of_text = self._find_beginning_of_text(config)
        divided_by = {
            token: self._encoded(token, (token_id,))
            for token, token_id in dividers(self._own, lambda text: _encode(self._own, text)).items()
        }
        self._all_divide = len(divided_by) == len(self._own.get_added_tokens_decoder())
        has_words = self._all_divide and cuts_before_words(self._own)
        words = WordCache(self._encode_each, self._special_ids) if has_words else None
        self._segments = SegmentCache(self._encode_piece, divided_by, words) if divided_by else None

    def encode(self, text: str) -> Encoded:
        """The ids of ``text``, control tokens recognised: what transformers gives without special tokens added."""
        return self._encode_piece(text) if self._segments is None else self._segments.encode(text)

    def plain_prompts(self, outline: Callable[[tuple[str, ...], bool], Sequence[str]]) -> PlainPrompts | None:
        """Prompts by the ``outline`` of a template that only shows contents (gateway/plain_prompts.py).

        None where this tokenizer has to see all of a prompt.
        """
        added = [token.content for token in self._own.get_added_tokens_decoder().values()]
        if self._segments is None or not self._all_divide or not stand_alone(added):
            return None
        return PlainPrompts(self._segments, added, outline)

    def encode_respelled(self, text: str) -> list[int]:
        """The ids of ``text``, control tokens recognised in private spelling only.

        Raises ``ValueError`` where the vocabulary itself reads a part of the text as a control token, as vocabularies
        of the unigram kind do: such a tokenizer has no ids for it as ordinary text.
        """
        ids = _encode(self._copy, text)
        if any(token_id in self._respelled_ids and token_id not in self._own_ids for token_id in ids):
            raise ValueError("reads as a control token that the model's tokenizer cannot encode as text")
        return [self._own_ids.get(token_id, token_id) for token_id in ids]

    def encode_text(self, text: str) -> list[int]:
        """The ids of ``text`` without any control token, behind the model's beginning-of-text if it has one.

        Raises ``ValueError`` as ``encode_respelled`` does, and for the characters of the private spelling.
        """
        if uses_reserved_characters(text):
            raise ValueError("has one of the noncharacters U+FDD0 to U+FDD2")
        return [*self._beginning_of_text, *self.encode_respelled(text)]

    def specials(self, ids: Sequence[int]) -> list[int]:
        """The special tokens among ``ids``. The unknown token is none: it stands for characters without a token."""
        return [token_id for token_id in ids if token_id in self._special_ids]

    def find_specials(self, text: str) -> list[int]:
        """The special tokens that ``encode`` would recognise in ``text``, the unknown one if it is written out."""
        found = (self._found_ids.get(token_id) for token_id in _encode(self._finder, text))
        return [token_id for token_id in found if token_id is not None]

    def _encode_piece(self, text: str) -> Encoded:
        return self._encoded(text, _encode(self._own, text))

    def _encoded(self, text: str, ids: Sequence[int]) -> Encoded:
        return Encoded(ids=packed(ids), written=packed(self.find_specials(text)), specials=packed(self.specials(ids)))

    def _encode_each(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._own.encode_batch_fast(texts, add_special_tokens=False)]

    def _find_beginning_of_text(self, config: Mapping[str, Any]) -> list[int]:
        """What the tokenizer puts before a text by itself, without what it puts behind."""
        bos = self.named_tokens.get("bos_token")
        if bos is None:
            return []
        bos_id = _id_of(bos, self._own)
        if "add_bos_token" in config or "add_eos_token" in config:  # transformers then replaces the post-processor
            is_added = bool(config.get("add_bos_token"))
        else:
            is_added = self._own.encode("").ids[:1] == [bos_id]
        return [bos_id] if is_added else []


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    # encode() would hold the GIL for as long as it takes; encode_batch_fast() releases it.
    ids: list[int] = tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return ids


def _id_of(token: str, tokenizer: Tokenizer) -> int:
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise ValueError(f"the tokenizer lacks its own token {token!r}")
    return token_id


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that have a name, as templates use them; the file holds texts, or objects with a ``content``."""
    named: dict[str, str] = {}
    for name in _NAMES:
        token = config.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            named[name] = content
    return named


def _own_tokenizer(tokenizer_json: bytes, config: Mapping[str, Any], named: Mapping[str, str]) -> Tokenizer:
    """The tokenizer with the added tokens that only its configuration knows, as transformers loads it."""
    try:
        tokenizer = Tokenizer.from_buffer(tokenizer_json)
    except Exception as error:  # the library raises no narrower class
        raise ValueError(f"tokenizer.json cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    listed = sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0]))
    tokenizer.add_tokens([AddedToken(**token) for _, token in listed if token["content"] not in known])
    known |= {token["content"] for _, token in listed}
    tokenizer.add_tokens([AddedToken(token, special=True) for token in named.values() if token not in known])
    return tokenizer


def _unknown_token(tokenizer: Tokenizer, named: Mapping[str, str]) -> str | None:
    """What the tokenizer's model gives for characters that it has no token for."""
    if isinstance(tokenizer.model, models.Unigram):  # does not tell; named so in every checkpoint of this kind
        return named.get("unk_token")
    unknown: str | None = getattr(tokenizer.model, "unk_token", None)
    return unknown


def _finder_of(own: Tokenizer, special: AbstractSet[str]) -> tuple[Tokenizer, dict[int, int]]:
    """A tokenizer that makes one token of all that stands between added tokens, and the own ids of ``special`` ones."""
    finder = Tokenizer(models.WordLevel({"": 0}, unk_token=""))
    if own.normalizer is not None:
        finder.normalizer = own.normalizer
    own_ids: dict[int, int] = {}
    for own_id, token in sorted(own.get_added_tokens_decoder().items()):
        finder.add_tokens([token])
        if token.content in special:
            own_ids[_id_of(token.content, finder)] = own_id
    return finder, own_ids


def _copy_with(spellings: Mapping[str, str], own: Tokenizer) -> tuple[Tokenizer, dict[int, int]]:
    """``own`` with its control tokens spelled by ``spellings``, and the own ids of the copy's added tokens.

    The vocabulary, which is nearly all of a tokenizer's memory, is shared.
    """
    copy = Tokenizer(own.model)
    if own.normalizer is not None:
        copy.normalizer = own.normalizer
    if own.pre_tokenizer is not None:
        copy.pre_tokenizer = own.pre_tokenizer
    own_ids: dict[int, int] = {}
    for own_id, token in sorted(own.get_added_tokens_decoder().items()):
        private = spellings.get(token.content)
        if private is not None:
            # A private spelling has no other form that a normalizer could make of it.
            token = AddedToken(  # noqa: PLW2901 - the same token, respelled
                private, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False
            )
        copy.add_tokens([token])
        own_ids[_id_of(token.content, copy)] = own_id
    return copy, own_ids
