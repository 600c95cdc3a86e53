"""The control tokens of a model as text: where they stand in a text, and other spellings for them.

To keep a control token that a caller wrote apart from one that the template wrote, both are spelled with noncharacters
for a while. Unicode keeps U+FDD0 to U+FDEF for the inner use of programs; no text that is interchanged needs them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from gateway.token_pattern import longest_of

_CONTROL, _TEXT, _END = "\ufdd0", "\ufdd1", "\ufdd2"
_RESERVED = re.compile(f"[{_CONTROL}-{_END}]")
_TEXT_MARK = re.compile(f"{_TEXT}([0-9]+){_END}")
# How JSON with ensure_ascii would write a mark, which could then not be found again.
_ESCAPED = re.compile(r"\\ufdd[0-2]", re.IGNORECASE)

# Characters without a meaning of their own, of which texts without meaning are made.
_PRIVATE_USE = range(0xE000, 0xF900)
_MAX_SILENCED_CHARACTERS = 16


class ControlTokens:
    """The tokens by which a model tells who speaks.

    ``special`` tokens are what tokenizer.json calls special. ``structural`` ones it calls ordinary, but the chat
    template writes them: ``<tool_call>``, or in some families the marks of the roles. An answer may have these.
    """

    def __init__(self, special: Sequence[str], structural: Sequence[str]) -> None:
        self.has_structural = bool(structural)
        self._tokens = (*special, *structural)
        self._places = {token: place for place, token in enumerate(self._tokens)}
        self._any = _pattern(self._tokens)
        self._special = _pattern(special)
        self._structural = _pattern(structural)
        used = set("".join(self._tokens))
        self._silent = [mark for mark in map(chr, _PRIVATE_USE) if mark not in used]

    def spellings(self) -> dict[str, str]:
        """The private spelling of each token."""
        return {token: f"{_CONTROL}{place}{_END}" for token, place in self._places.items()}

    def respelled(self, text: str) -> str:
        """``text`` with its control tokens in private spelling."""
        return self._any.sub(lambda found: f"{_CONTROL}{self._places[found.group()]}{_END}", text)

    def stand_in(self, text: str, *, is_answer: bool) -> bool:
        """Whether some part of ``text`` reads as a control token that it must not hold."""
        return (self._special if is_answer else self._any).search(text) is not None

    def is_structural(self, text: str) -> bool:
        """Whether a structural token is written out in ``text``."""
        return self._structural.search(text) is not None

    def marked(self, text: str) -> str:
        """``text`` with a mark for each part that reads as a control token."""
        return self._any.sub(self._mark, text)

    def marked_answer(self, text: str) -> str:
        """As ``marked``, for text that the model may have written."""
        return self._special.sub(self._mark, text)

    def unmarked(self, text: str) -> str:
        """``text`` with each mark replaced by what it stands for."""
        return _TEXT_MARK.sub(lambda found: self._tokens[int(found[1])], text)

    def _mark(self, found: re.Match[str]) -> str:
        return f"{_TEXT}{self._places[found.group()]}{_END}"

    def silencer(self) -> Callable[[str], str]:
        """A function that takes the meaning out of texts, but not what templates ask of them.

        Blank texts stay blank, equal ones equal, different ones different, and short ones as long as they are.
        """
        numbers: dict[str, int] = {}

        def silenced(text: str) -> str:
            inner = text.strip()
            if not inner:
                return text[:_MAX_SILENCED_CHARACTERS]
            start = text.index(inner)
            before, behind = text[:start][-1:], text[start + len(inner) :][:1]
            number = numbers.setdefault(inner, len(numbers))
            length = min(len(inner), _MAX_SILENCED_CHARACTERS)
            return f"{before}{self._silent[0] * (length - 1)}{self._silent[number % len(self._silent)]}{behind}"

        return silenced


def _pattern(tokens: Sequence[str]) -> re.Pattern[str]:
    """Matches what a tokenizer would match: of the tokens that start at a place, the longest."""
    return re.compile(longest_of(tokens))


def uses_reserved_characters(text: str) -> bool:
    """Whether ``text`` has the characters that private spellings are made of."""
    return _RESERVED.search(text) is not None


def has_escaped_marks(text: str) -> bool:
    """Whether a mark was turned into a JSON escape, or something that looks like it."""
    return _ESCAPED.search(text) is not None
