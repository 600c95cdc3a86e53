"""Token ids of the parts of prompts that come again: system prompts, and the turns of a conversation before its last.

A tokenizer cuts a text at its added tokens before it does anything else, and encodes what stands between them piece by
piece. So the ids of a text are those of its pieces, laid end to end, and the ids of a piece can be kept. Two things
could make that untrue: added tokens that take neighbouring blanks or depend on neighbours, and pre-tokenizers that
treat the beginning of a text in their own way. ``can_split`` says whether a tokenizer has either.
"""

from __future__ import annotations

import json
import re
import threading
from array import array
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer

# What is kept at most, for one model: four bytes an id, and the text.
_MAX_KEPT_BYTES = 8 * 2**20
_MAX_SEGMENT_BYTES = _MAX_KEPT_BYTES // 8
_ENTRY_BYTES = 256

# Texts that begin, end and break in the ways in which pieces of prompts do.
_PROBES = ("", " ", "a", " a", "a ", "\n", "a\n\nb", "  two", "1234 12", "don't", "été 你好", "\ufeffx", "e\u0301")


def can_split(tokenizer: Tokenizer, encode: Callable[[str], list[int]]) -> bool:
    """Whether the ids of a text are those of its pieces between added tokens; tried out on ``encode``, too."""
    added = tokenizer.get_added_tokens_decoder()
    if not added or any(token.lstrip or token.rstrip or token.single_word for token in added.values()):
        return False
    if tokenizer.normalizer is not None and any(token.normalized for token in added.values()):
        return False
    before = json.loads(tokenizer.to_str()).get("pre_tokenizer")
    if '"prepend_scheme": "first"' in json.dumps(before):
        return False
    token_id, token = next(iter(sorted(added.items())))
    mark = token.content
    return all(
        [*encode(one), token_id, *encode(other), token_id, *encode(one)] == encode(f"{one}{mark}{other}{mark}{one}")
        for one in _PROBES
        for other in _PROBES
    )


class Encoded(NamedTuple):
    """The ids of a text. ``written`` are the special tokens that stand in it as text, the unknown one included.

    ``specials`` are those among the ids: a vocabulary can make one of text that is none.
    """

    ids: list[int]
    written: list[int]
    specials: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    ids: array[int]
    specials: tuple[int, ...]  # that the vocabulary made of ordinary text
    size_bytes: int


class SegmentCache:
    """Encodes texts from pieces that were encoded before. Safe to use from several threads."""

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        added: Mapping[str, int],
        *,
        written_ids: Collection[int],
        special_ids: Collection[int],
    ) -> None:
        """``added`` are all added tokens by their text; the other two tell which ids ``Encoded`` is to name."""
        longest_first = sorted(added, key=len, reverse=True)
        self._added = added
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._encode = encode
        self._written_ids = frozenset(written_ids)
        self._special_ids = frozenset(special_ids)
        self._kept: dict[str, _Segment] = {}  # least recently used first
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def missing_characters(self, text: str) -> int:
        """How much of ``text`` is not kept."""
        pieces = self._pattern.split(text)
        return sum(len(piece) for piece in pieces if piece and piece not in self._kept)

    def encode(self, text: str) -> Encoded:
        """The ids of ``text``, added tokens recognised."""
        ids: list[int] = []
        written: list[int] = []
        specials: list[int] = []
        at = 0
        for found in self._pattern.finditer(text):
            start, end = found.span()
            if start > at:
                self._extend(ids, specials, text[at:start])
            token_id = self._added[found.group()]
            ids.append(token_id)
            if token_id in self._written_ids:
                written.append(token_id)
            if token_id in self._special_ids:
                specials.append(token_id)
            at = end
        if at < len(text):
            self._extend(ids, specials, text[at:])
        return Encoded(ids, written, specials)

    def _extend(self, ids: list[int], specials: list[int], piece: str) -> None:
        with self._lock:
            segment = self._kept.pop(piece, None)
            if segment is not None:
                self._kept[piece] = segment
        if segment is None:
            segment = self._encoded(piece)
        ids.extend(segment.ids)
        specials.extend(segment.specials)

    def _encoded(self, piece: str) -> _Segment:
        ids = self._encode(piece)
        segment = _Segment(
            ids=array("i", ids),
            specials=tuple(token_id for token_id in ids if token_id in self._special_ids),
            size_bytes=_ENTRY_BYTES + 4 * (len(piece) + len(ids)),
        )
        if segment.size_bytes <= _MAX_SEGMENT_BYTES:
            self._keep(piece, segment)
        return segment

    def _keep(self, piece: str, segment: _Segment) -> None:
        with self._lock:
            if piece in self._kept:  # another thread was as fast
                return
            self._kept[piece] = segment
            self._kept_bytes += segment.size_bytes
            while self._kept_bytes > _MAX_KEPT_BYTES:
                oldest = next(iter(self._kept))
                self._kept_bytes -= self._kept.pop(oldest).size_bytes
