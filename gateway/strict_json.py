"""Reads JSON that callers send, within limits that hold before the parser recurses."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from gateway.violations import quoted

# Strings, and everything else that is no bracket. Possessive, so that no text makes it backtrack; a string without an
# end is one all the same, or each quote in it would be tried as the beginning of another one.
_NOT_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^\[\]{}"]++', re.DOTALL)
_AS_ROUND = str.maketrans("[]{}", "()()")


def parse_strict_json(text: str, *, max_depth: int) -> Any:
    """Parse ``text``. Raises ``ValueError``, with a description for the caller, for what RFC 8259 leaves open.

    That is: nesting beyond ``max_depth`` levels, a name twice in one object, NaN and Infinity, numbers beyond a double,
    integers of more than 4,300 digits, and half surrogate pairs, which no tokenizer can encode.
    """
    if _is_deeper_than(max_depth, text):
        raise ValueError(f"is nested deeper than {max_depth} levels")
    try:
        value = json.loads(
            text, object_pairs_hook=_distinct_names, parse_float=_finite_float, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos}") from None
    if "\\u" in text:
        _refuse_half_surrogates(value)
    return value


def _is_deeper_than(max_depth: int, text: str) -> bool:
    """Whether brackets nest deeper. Each pass takes the innermost level away, at the speed of ``str.replace``."""
    brackets = _NOT_BRACKETS.sub("", text).translate(_AS_ROUND)
    if "(" * (max_depth + 1) in brackets:
        return True
    for _ in range(max_depth):
        if not brackets:
            return False
        brackets = brackets.replace("()", "")
    return "()" in brackets


def _distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"has the name {quoted(name)} twice in one object")
            seen.add(name)
    return value


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("has a number beyond the range of a double")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"has {name}, which is not JSON")


def _refuse_half_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("has an escape that is half a surrogate pair") from None
