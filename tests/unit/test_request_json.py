from __future__ import annotations

import time

import pytest

from gateway.strict_json import parse_strict_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        ('"[[[[[[[[["', "[[[[[[[[["),
        ('{"a\\"[": "\\\\", "b": []}', {'a"[': "\\", "b": []}),
        ('"\\ud83d\\ude00"', "😀"),
        ("[[[]]]", [[[]]]),
        ("-0", 0),
    ],
)
def test_json_is_read(text: str, value: object) -> None:
    """What RFC 8259 calls JSON is read, brackets inside of strings included."""
    assert value == parse_strict_json(text, max_depth=3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[[[]]]]", "deeper than 3"),
        ('{"a": {"b": [{}]}}', "deeper than 3"),
        ("[" * 1_000_000, "deeper than 3"),
        ("[[[[", "deeper than 3"),
        ("[1, 2", "is not JSON"),
        ("[}", "is not JSON"),
        ("", "is not JSON"),
        ('"\\', "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        ("[1] 2", "is not JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "the name 'a' twice"),
        ("NaN", "NaN"),
        ("[-Infinity]", "Infinity"),
        ("1e400", "range of a double"),
        ("9" * 5000, "4300"),
        ('"\\ud800"', "half a surrogate pair"),
        ('{"\\udc00": 1}', "half a surrogate pair"),
    ],
)
def test_what_other_readers_take_differently_is_refused(text: str, complaint: str) -> None:
    """Depth, doubled names, numbers beyond a double and half surrogate pairs are refused with a description."""
    with pytest.raises(ValueError, match=complaint):
        parse_strict_json(text, max_depth=3)


def test_a_string_without_an_end_is_refused_at_once() -> None:
    """Each quote in it was tried as the beginning of another one: 64 KiB took 20 s, and no other thread ran."""
    before = time.thread_time()
    with pytest.raises(ValueError, match="Unterminated string"):
        parse_strict_json('{"a": "' + '\\"' * 16_000, max_depth=3)
    assert time.thread_time() - before < 0.5
