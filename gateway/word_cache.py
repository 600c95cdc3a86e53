"""Token ids of words that were encoded before: a short text costs a look-up for each of its words.

The pre-tokenizers of the byte-level families cut a text by a regular expression and encode each cut by itself. Where
something that is no space is followed by one space and something that is none, all of these expressions cut before the
space: none of their alternatives takes a space behind its first character, but for runs of spaces, and none looks
back. So the ids of such a text are those of its words, each with the space before it, laid end to end.
``cuts_before_words`` knows the expressions for which this has been thought through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from tokenizers import Tokenizer, models

from tidegate.rpc.token_ids import packed

# Longer texts are encoded by threads, which this would hold up: it runs under the interpreter's lock.
MAX_CHARACTERS = 4096
_MAX_WORDS, _MAX_WORD_CHARACTERS = 20_000, 32  # some megabytes

# The alternatives of GPT-2, of Llama 3 and its relatives, of Qwen and of o200k; a contraction is one of these.
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ALTERNATIVES = frozenset(
    {
        *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", _CONTRACTIONS),
        *(r" ?\p{L}+", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]+", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}", r"\p{N}{1,3}"),
        *(r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"),
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTIONS + "?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTIONS + "?",
    }
)


def cuts_before_words(tokenizer: Tokenizer) -> bool:
    """Whether the ids of a text without added tokens are those of its words, for certain."""
    if not isinstance(tokenizer.model, models.BPE) or tokenizer.model.dropout:
        return False
    bare = Tokenizer(models.BPE())
    for name in ("normalizer", "pre_tokenizer"):
        if getattr(tokenizer, name) is not None:
            setattr(bare, name, getattr(tokenizer, name))
    spec = json.loads(bare.to_str())
    # NFC puts nothing together with a space.
    if (spec["normalizer"] or {"type": "NFC"})["type"] != "NFC":
        return False
    steps: list[Any] = [spec["pre_tokenizer"]]
    if steps[0] is not None and steps[0]["type"] == "Sequence":
        steps = steps[0]["pretokenizers"]
    return all(map(_is_known, steps)) and any(map(_cuts, steps))


def _is_known(step: Mapping[str, Any] | None) -> bool:
    kind = None if step is None else step["type"]
    if step is None or kind == "Digits":  # cuts around digits, wherever they stand
        return step is not None
    if kind == "ByteLevel":
        return not step["add_prefix_space"]
    return kind == "Split" and step["behavior"] == "Isolated" and not step["invert"] and _is_understood(step["pattern"])


def _is_understood(pattern: Mapping[str, str]) -> bool:
    expression, mark = pattern.get("Regex", ""), "\0"
    alternatives = expression.replace(_CONTRACTIONS, mark).split("|")
    return all(alternative.replace(mark, _CONTRACTIONS) in _ALTERNATIVES for alternative in alternatives)


def _cuts(step: Mapping[str, Any]) -> bool:
    return step["type"] == "Split" or (step["type"] == "ByteLevel" and bool(step["use_regex"]))


class WordCache:
    """Encodes short texts from words that were encoded before. Safe to use from several threads."""

    def __init__(self, encode: Callable[[Sequence[str]], Sequence[Sequence[int]]], special: AbstractSet[int]) -> None:
        """``encode`` is for texts one by one; words that have ``special`` ids are not kept."""
        self._encode = encode
        self._special = special
        self._first: dict[str, bytes] = {}  # what begins a text
        self._further: dict[str, bytes] = {}  # words that follow a space, which is part of their ids

    def encode(self, text: str) -> bytes | None:
        """The ids of ``text``, in which no added token stands. None: it has to be encoded as a whole."""
        words, further = text.split(" "), self._further
        ids = [further.get(word, b"") for word in words]
        ids[0] = self._first.get(words[0], b"")
        if all(ids) or self._learn(words, ids):
            return b"".join(ids)
        return None

    def _learn(self, words: Sequence[str], ids: list[bytes]) -> bool:
        """Fill in the ``ids`` of words that are new, and keep them; False where one cannot stand for itself."""
        if len(self._first) + len(self._further) > _MAX_WORDS:
            self._first, self._further = {}, {}
        places = [at for at, of_word in enumerate(ids) if not of_word]
        for at in places:
            if not _may_precede_a_space(words[at]) or (at and words[at][0].isspace()):
                return False
        for at, of_word in zip(
            places, self._encode([f" {words[at]}" if at else words[0] for at in places]), strict=True
        ):
            if not self._special.isdisjoint(of_word):
                return False
            ids[at] = packed(of_word)
            (self._further if at else self._first)[words[at]] = ids[at]
        return True


def _may_precede_a_space(text: str) -> bool:
    """Whether ``text`` ends with what is no space of any kind, and is worth being kept."""
    return 0 < len(text) <= _MAX_WORD_CHARACTERS and not text[-1].isspace()
