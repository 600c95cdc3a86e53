"""A regular expression for any of many tokens: what it takes at a place does not grow with their number."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import groupby


def longest_of(tokens: Collection[str]) -> str:
    """An expression that matches, of the ``tokens`` that start at a place, the longest; of no tokens, nothing.

    Tokens that begin alike share an alternative. Written one behind the other, each of them is tried wherever a text
    has what some thousand reserved tokens begin with, and the interpreter's lock is held for as long as that takes.
    """
    return _alternatives(sorted(set(tokens))) or "(?!)"


def _alternatives(endings: list[str]) -> str:
    """``endings`` are sorted, and different."""
    may_end = endings[:1] == [""]
    written: list[str] = []
    for _, same in groupby(endings[may_end:], key=lambda ending: ending[0]):
        group = list(same)
        start = _common_start(group[0], group[-1])
        written.append(re.escape(start) + _alternatives([ending[len(start) :] for ending in group]))
    if not written:
        return ""
    return f"(?:{'|'.join(written)}){'?' if may_end else ''}"


def _common_start(first: str, last: str) -> str:
    """What both begin with, and so all that is sorted between them."""
    length = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[:length] if length is not None else min(first, last, key=len)
