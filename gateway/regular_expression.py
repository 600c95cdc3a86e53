r"""Translates regular expressions (RE2 syntax) into the part of the language that every engine reads alike.

xgrammar, which restricts the sampling, and RE2, which judges the finished text, differ silently: to xgrammar ``.``
matches a line feed, ``\s`` a no-break space, ``[\^]`` everything, and an anchor in the middle is ignored. What leaves
here has only literals, character classes, groups, alternatives and counted repetition, each written so that both agree.
What cannot be translated is refused by name.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

import re2

from gateway.violations import quoted

MAX_CHARACTERS = 4096

# Bounds of the compiled program. RE2 needs no more for .{1,1000}, its longest repetition, in UTF-8.
_MAX_COMPILE_BYTES = 1 << 19
_MAX_PROGRAM_INSTRUCTIONS = 20_000

_MAX_CODE_POINT = 0x10FFFF
_CARET = ord("^")

_NAMED_CONTROLS = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\f": r"\f", "\v": r"\v"}

Ranges = list[tuple[int, int]]  # inclusive code points

_DIGIT: Ranges = [(0x30, 0x39)]
_WORD: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE: Ranges = [(0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20)]
# What stands in a JSON string only as an escape, which xgrammar does not write for a pattern.
_ESCAPED_IN_JSON: Ranges = [(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C)]
_CONTROL_ESCAPES = {"n": 0x0A, "t": 0x09, "r": 0x0D, "f": 0x0C, "v": 0x0B, "a": 0x07}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_CLASS_OR_ESCAPE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*+\]?", re.DOTALL)
_COUNT = re.compile(r"\{(\d{1,4})(?:,(\d{0,4}))?\}")
_REPETITION = re.compile(r"[*+?]|\{\d{1,4}(?:,\d{0,4})?\}")
_GROUP_START = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>)?+(?!\?)")
_HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")


def canonical_regex(pattern: str) -> str:
    """The canonical form of ``pattern``, to be matched from end to end. Raises ``ValueError`` with a description."""
    return _translate(pattern, excluded=[])[0]


def canonical_json_pattern(pattern: str) -> tuple[str, int]:
    """As ``canonical_regex``, for the keyword ``pattern`` of a JSON Schema; matches no text that JSON has to escape.

    Also how many instructions RE2 compiles it to, of which each takes a microsecond here.
    """
    canonical, instructions = _translate(pattern, excluded=_ESCAPED_IN_JSON)
    return f"^(?:{canonical})$", instructions


def _translate(pattern: str, *, excluded: Ranges) -> tuple[str, int]:
    if len(pattern) > MAX_CHARACTERS:
        raise ValueError(f"is longer than {MAX_CHARACTERS} characters")
    _check_cost(pattern)
    _check_by_re2(pattern)
    canonical = "".join(_Translation(pattern, excluded).pieces())
    return canonical, _check_by_re2(canonical)


def _check_cost(pattern: str) -> None:
    """Refuse what costs RE2 much before its own bounds stop it: it compiles with the GIL held, as it is called here.

    Nothing that would be accepted is refused: classes by property are not translated, and each copy that a repetition
    asks for is at least one instruction.
    """
    for escape in _ESCAPE.finditer(pattern):
        if escape[1] in ("p", "P"):
            raise ValueError(f"has an unsupported escape at character {escape.start()}: {escape[0]}")
    copies = sum(int(most or least or 0) for least, most in _COUNT.findall(_CLASS_OR_ESCAPE.sub("", pattern)))
    if copies > _MAX_PROGRAM_INSTRUCTIONS:
        raise ValueError(f"compiles to more than {_MAX_PROGRAM_INSTRUCTIONS} instructions")


def _check_by_re2(pattern: str) -> int:
    """How many instructions it compiles to."""
    options = re2.Options()
    options.max_mem = _MAX_COMPILE_BYTES
    options.log_errors = False
    try:
        program = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"is not accepted by RE2: {quoted(reason, max_characters=120)}") from None
    instructions: int = program.programsize
    if instructions > _MAX_PROGRAM_INSTRUCTIONS:
        raise ValueError(f"compiles to more than {_MAX_PROGRAM_INSTRUCTIONS} instructions")
    return instructions


class _Translation:
    """One pass over a pattern that RE2 accepts; groups nest in the text only, so that nothing recurses."""

    def __init__(self, pattern: str, excluded: Ranges) -> None:
        self._pattern = pattern
        self._excluded = excluded
        self._at = 0

    def pieces(self) -> Iterable[str]:
        pattern = self._pattern
        if pattern.startswith("^"):  # the whole text is matched in any case
            self._at = 1
        end = len(pattern) - (1 if _ends_in_anchor(pattern) else 0)
        while self._at < end:
            yield self._piece(pattern[self._at])

    def _piece(self, character: str) -> str:
        pattern, start = self._pattern, self._at
        if repetition := _REPETITION.match(pattern, start):
            self._at = repetition.end()
            if pattern.startswith("?", self._at):  # lazy or greedy, the set of full matches is the same
                self._at += 1
            return repetition.group()
        if character == "(":
            group = _GROUP_START.match(pattern, start)
            if group is None:
                raise ValueError(f"has an unsupported group at character {start}: flags and assertions")
            self._at = group.end()
            return "(?:"
        self._at += 1
        return character if character in "|)" else self._set(self._atom(character))

    def _atom(self, character: str) -> Ranges:
        if character in "^$":
            raise ValueError(f"has an anchor at character {self._at - 1}; the whole text is matched, leave anchors out")
        if character == ".":
            return _complement([(0x0A, 0x0A)])
        if character == "[":
            return self._class()
        return self._escape() if character == "\\" else [(ord(character), ord(character))]

    def _escape(self) -> Ranges:
        r"""The characters that the escape at the current place stands for, such as ``\d`` or ``\x2e``."""
        pattern, start = self._pattern, self._at
        character = pattern[start]
        self._at += 1
        shorthand = {"d": _DIGIT, "w": _WORD, "s": _SPACE}.get(character.lower())
        if shorthand is not None:
            return shorthand if character.islower() else _complement(shorthand)
        if number := _HEX.match(pattern, start):
            self._at = number.end()
            point = int(number[1] or number[2], 16)
        elif character in _CONTROL_ESCAPES:
            point = _CONTROL_ESCAPES[character]
        elif character.isascii() and not character.isalnum():
            point = ord(character)
        else:
            raise ValueError(f"has an unsupported escape at character {start - 1}: \\{character}")
        return [(point, point)]

    def _class(self) -> Ranges:
        pattern = self._pattern
        negated = pattern.startswith("^", self._at)
        self._at += negated
        ranges: Ranges = []
        first = True
        while first or pattern[self._at] != "]":
            first = False
            if pattern.startswith("[:", self._at):
                raise ValueError(f"has an unsupported class name at character {self._at}")
            item = self._class_item()
            is_character = len(item) == 1 and item[0][0] == item[0][1]
            if is_character and pattern.startswith("-", self._at) and pattern[self._at + 1] != "]":
                self._at += 1
                item = [(item[0][0], self._class_item()[0][0])]
            ranges += item
        self._at += 1
        return _complement(ranges) if negated else ranges

    def _class_item(self) -> Ranges:
        character = self._pattern[self._at]
        self._at += 1
        return self._escape() if character == "\\" else [(ord(character), ord(character))]

    def _set(self, ranges: Ranges) -> str:
        allowed = _complement(_complement(ranges) + self._excluded) if self._excluded else _merged(ranges)
        if not allowed:
            raise ValueError(
                "has a class that no character can match; JSON strings hold quotes and controls as escapes"
            )
        return _written(allowed)


def _ends_in_anchor(pattern: str) -> bool:
    stem = pattern.removesuffix("$")
    backslashes = len(stem) - len(stem.rstrip("\\"))
    return stem != pattern and backslashes % 2 == 0


def _merged(ranges: Ranges) -> Ranges:
    merged: Ranges = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _complement(ranges: Ranges) -> Ranges:
    gaps: Ranges = []
    start = 0
    for low, high in _merged(ranges):
        if low > start:
            gaps.append((start, low - 1))
        start = high + 1
    if start <= _MAX_CODE_POINT:
        gaps.append((start, _MAX_CODE_POINT))
    return gaps


def _written(ranges: Ranges) -> str:
    """A class, or a literal, that RE2 and xgrammar read alike."""
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return _character(ranges[0][0]) if ranges[0][0] else r"(?:\x00)"
    if ranges[-1][1] < _MAX_CODE_POINT:
        return f"[{_members(ranges)}]"
    rest = _complement(ranges)
    return f"[^{_members(rest)}]" if rest else r"(?:[^\n]|\n)"


def _members(ranges: Ranges) -> str:
    # xgrammar takes a caret that comes first for a negation even when it is escaped, and reads any number of digits
    # behind \\x; so these two come last.
    last = {_CARET, 0}
    members = [(low + (low in last), high) for low, high in ranges]
    members += [(low, low) for low, _ in ranges if low in last]
    return "".join(
        _character(low) if low == high else f"{_character(low)}-{_character(high)}"
        for low, high in members
        if low <= high
    )


def _character(point: int) -> str:
    character = chr(point)
    if point == 0:
        return r"\x00"
    if character in _NAMED_CONTROLS:
        return _NAMED_CONTROLS[character]
    return f"\\{character}" if character in string.punctuation else character
