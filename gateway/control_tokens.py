"""The control tokens of a model as text: where they stand in a text, and other spellings for them.

To keep a control token that a caller wrote apart from one that the template wrote, both are spelled with noncharacters
for a while. Unicode keeps U+FDD0 to U+FDEF for the inner use of programs; no text that is interchanged needs them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL, _TEXT, _END = "\ufdd0", "\ufdd1", "\ufdd2"
_RESERVED = re.compile(f"[{_CONTROL}-{_END}]")
_TEXT_MARK = re.compile(f"{_TEXT}([0-9]+){_END}")
# How JSON with ensure_ascii would write a mark, which could then not be found again.
_ESCAPED = re.compile(r"\\ufdd[0-2]", re.IGNORECASE)

_FILLERS = "~#%^;@=*+"
_MAX_SILENCED_CHARACTERS = 64


class ControlTokens:
    """The control tokens ``tokens``, each known by its place in that order."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tuple(tokens)
        self._places = {token: place for place, token in enumerate(tokens)}
        longest_first = sorted(tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # Some character that no control token has; a vocabulary that uses all of these gets a reserved one.
        self._filler = next((mark for mark in _FILLERS if not any(mark in token for token in tokens)), _END)

    def spellings(self) -> dict[str, str]:
        """The private spelling of each control token."""
        return {token: f"{_CONTROL}{place}{_END}" for token, place in self._places.items()}

    def respelled(self, text: str) -> str:
        """``text`` with its control tokens in private spelling."""
        return self._pattern.sub(lambda found: f"{_CONTROL}{self._places[found.group()]}{_END}", text)

    def stand_in(self, text: str) -> bool:
        """Whether some part of ``text`` reads as a control token."""
        return self._pattern.search(text) is not None

    def marked(self, text: str) -> str:
        """``text`` with a mark for each part that reads as a control token."""
        return self._pattern.sub(lambda found: f"{_TEXT}{self._places[found.group()]}{_END}", text)

    def unmarked(self, text: str) -> str:
        """``text`` with each mark replaced by what it stands for."""
        return _TEXT_MARK.sub(lambda found: self._tokens[int(found[1])], text)

    def silenced(self, text: str) -> str:
        """A text of no meaning that a template treats alike: as blank, and as long if it is short."""
        inner = text.strip()
        if not inner:
            return text[:_MAX_SILENCED_CHARACTERS]
        start = text.index(inner)
        before, behind = text[:start][-1:], text[start + len(inner) :][:1]
        return f"{before}{self._filler * min(len(inner), _MAX_SILENCED_CHARACTERS)}{behind}"


def uses_reserved_characters(text: str) -> bool:
    """Whether ``text`` has the characters that private spellings are made of."""
    return _RESERVED.search(text) is not None


def has_escaped_marks(text: str) -> bool:
    """Whether a mark was turned into a JSON escape, or something that looks like it."""
    return _ESCAPED.search(text) is not None
