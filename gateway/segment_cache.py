"""Token ids of the parts of prompts that come again: system prompts, and the turns of a conversation before its last.

A tokenizer cuts a text at its added tokens before it does anything else, and encodes what stands between them piece by
piece. So the ids of a text are those of its pieces, laid end to end, and the ids of a piece can be kept. Two things
could make that untrue: added tokens that take neighbouring blanks or depend on neighbours, and pre-tokenizers that
treat the beginning of a text in their own way. ``dividers`` knows which tokenizers have neither.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer

from gateway.token_pattern import longest_of
from gateway.word_cache import MAX_CHARACTERS, WordCache

# What is kept at most, for one model: four bytes an id, and the text.
_MAX_KEPT_BYTES = 8 * 2**20
_MAX_SEGMENT_BYTES = _MAX_KEPT_BYTES // 8
_ENTRY_BYTES = 256
# Where each word is known, it takes longer to keep so short a piece than to encode it again.
_MAX_UNKEPT_CHARACTERS = 1024

# Texts that begin, end and break in the ways in which pieces of prompts do.
_PROBES = ("", " ", "a", " a", "a ", "\n", "a\n\nb", "  two", "1234 12", "don't", "été 你好", "\ufeffx", "e\u0301")


def dividers(tokenizer: Tokenizer, encode: Callable[[str], list[int]]) -> dict[str, int]:
    """The added tokens between which texts may be encoded piece by piece; none when this tokenizer must not be split.

    They are those that are looked for before anything else, in the text as it is. Tried out on ``encode``, too.
    """
    found = {token.content: token_id for token_id, token in _added(tokenizer) if not token.normalized}
    if any(token.lstrip or token.rstrip or token.single_word for _, token in _added(tokenizer) if not token.normalized):
        return {}
    if '"prepend_scheme": "first"' in json.dumps(json.loads(tokenizer.to_str()).get("pre_tokenizer")):
        return {}
    for divider, token_id in list(found.items())[:1]:
        for one in _PROBES:
            for other in _PROBES:
                ids = [*encode(one), token_id, *encode(other), token_id, *encode(one)]
                if ids != encode(f"{one}{divider}{other}{divider}{one}"):
                    return {}
    return found


def _added(tokenizer: Tokenizer) -> Sequence[tuple[int, AddedToken]]:
    return sorted(tokenizer.get_added_tokens_decoder().items())


@dataclass(slots=True, kw_only=True, init=False)
class Encoded:
    """The ids of a text, packed (tidegate/rpc/token_ids.py).

    ``written`` are the special tokens that stand in it as text, the unknown one included. ``specials`` are those among
    the ids: a vocabulary can make one of text that is none.
    """

    ids: bytes
    written: bytes
    specials: bytes

    def __init__(self, *, ids: bytes, written: bytes = b"", specials: bytes = b"") -> None:
        self.ids = ids
        self.written = written
        self.specials = specials


class SegmentCache:
    """Encodes texts, with the ids of pieces that were encoded before. Safe to use from several threads."""

    def __init__(
        self, encode: Callable[[str], Encoded], divided_by: Mapping[str, Encoded], words: WordCache | None = None
    ) -> None:
        """``divided_by`` are the ``dividers`` with their ids. ``words`` if they have all added tokens."""
        self._encode = encode
        self._dividers = dict(divided_by)
        self._pattern = re.compile(f"({longest_of(divided_by)})")
        self._words = words
        self._kept: dict[str, Encoded] = {}  # least recently used first
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def encode(self, text: str) -> Encoded:
        """The ids of ``text``, added tokens recognised."""
        ids: list[bytes] = []
        written: list[bytes] = []
        specials: list[bytes] = []
        for at, part in enumerate(self._pattern.split(text)):
            if part:
                encoded = self._dividers[part] if at % 2 else self._piece(part)
                ids.append(encoded.ids)
                written.append(encoded.written)
                specials.append(encoded.specials)
        return Encoded(ids=b"".join(ids), written=b"".join(written), specials=b"".join(specials))

    def encode_ordinary(self, text: str) -> bytes | None:
        """The ids of ``text`` alone; None where an added token stands in it, or a special one is among the ids."""
        if self._pattern.search(text) is not None:
            return None
        encoded = self._piece(text)
        return None if encoded.specials else encoded.ids

    def _piece(self, piece: str) -> Encoded:
        if piece in self._kept:
            with self._lock:
                kept = self._kept.pop(piece, None)
                if kept is not None:
                    self._kept[piece] = kept
                    return kept
        ids = self._words.encode(piece) if self._words is not None and len(piece) <= MAX_CHARACTERS else None
        encoded = self._encode(piece) if ids is None else Encoded(ids=ids)
        if ids is None or len(piece) > _MAX_UNKEPT_CHARACTERS:
            self._keep(piece, encoded)
        return encoded

    def _keep(self, piece: str, encoded: Encoded) -> None:
        size_bytes = _size_bytes(piece, encoded)
        if size_bytes > _MAX_SEGMENT_BYTES:
            return
        with self._lock:
            if piece in self._kept:  # another thread was as fast
                return
            self._kept[piece] = encoded
            self._kept_bytes += size_bytes
            while self._kept_bytes > _MAX_KEPT_BYTES:
                oldest = next(iter(self._kept))
                self._kept_bytes -= _size_bytes(oldest, self._kept.pop(oldest))


def _size_bytes(piece: str, encoded: Encoded) -> int:
    return _ENTRY_BYTES + 4 * len(piece) + len(encoded.ids)
