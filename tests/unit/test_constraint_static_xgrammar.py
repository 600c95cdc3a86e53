"""What passes the static checks means the same to the engine's library, xgrammar, and to the judges of the output.

HYPOTHESIS_PROFILE=thorough looks at ten times as many.
"""

from __future__ import annotations

import json
import os
from typing import Any

import jsonschema
import re2
import xgrammar
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from xgrammar.testing import _is_grammar_accept_string

from gateway.json_schema import canonical_json_schema
from gateway.regular_expression import canonical_regex

_SETTINGS = settings(
    max_examples=1000 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

_ATOMS = [
    *("a", "b", "0", "f", "é", "日", "😀", " ", "/", "-", "]", ".", r"\.", r"\d", r"\w", r"\s", r"\S", r"\W", r"\D"),
    *(r"\^", r"\-", r"\x00", r"\x01", r"\x7f", r"\n", r"\\", r"\]", r"\x{41}", r"\"", r"\$"),
]
_IN_CLASS = [*_ATOMS, "a-f", "0-9", "é-ü", r"\x00-\x1f", "!-~", r"\^-z", r"\x00-\x{10FFFF}"]
_QUANTIFIERS = ["", "", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"]
_TEXTS = st.text(
    st.sampled_from([*map(chr, range(128)), "é", "ü", "日", "😀", "\u00a0", "\u2028"]), max_size=5
) | st.sampled_from(["a", "ab", "aa", "00", "a b", "^", "]", "-", "\n", "\\"])


def _classes() -> st.SearchStrategy[str]:
    members = st.lists(st.sampled_from(_IN_CLASS), min_size=1, max_size=4).map("".join)
    return st.builds(lambda negation, inner: f"[{negation}{inner}]", st.sampled_from(["", "^"]), members)


_PATTERNS = st.recursive(
    st.builds(str.__add__, st.sampled_from(_ATOMS) | _classes(), st.sampled_from(_QUANTIFIERS)),
    lambda inner: (
        st.builds(lambda one, other: one + other, inner, inner)
        | st.builds(lambda one, other, times: f"({one}|{other}){times}", inner, inner, st.sampled_from(_QUANTIFIERS))
    ),
    max_leaves=6,
)


@_SETTINGS
@given(pattern=_PATTERNS, texts=st.lists(_TEXTS, min_size=20, max_size=20))
def test_canonical_regex_means_the_same_to_all(pattern: str, texts: list[str]) -> None:
    """The engine, RE2 on the canonical form and RE2 on the caller's own form accept the same texts."""
    try:
        canonical = canonical_regex(pattern)
    except ValueError:
        assume(False)  # noqa: FBT003 - refused, and nothing to compare
    own, judge, grammar = re2.compile(pattern), re2.compile(canonical), xgrammar.Grammar.from_regex(canonical)
    for text in texts:
        expected = own.fullmatch(text) is not None
        verdicts = (judge.fullmatch(text) is not None, _is_grammar_accept_string(grammar, text))
        assert (expected, expected) == verdicts, (pattern, canonical, text)


_SMALL = st.integers(0, 3)
_ANY_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 20)
    | st.sampled_from([0.5, -1.5, 2.0, 1e3])
    # Texts with quotation marks and line ends too.
    | st.sampled_from(["", "a", "ab", "abc", "x1", "é", 'a"b', "a\nb", "2024-02-28", "1.2.3.4", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=4,
)


def _optional(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=values)


def _with_type(name: object, keywords: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return keywords.map(lambda given: {"type": name, **given})


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = _optional(
        items=inner, prefixItems=st.lists(inner, min_size=1, max_size=2), minItems=_SMALL, maxItems=_SMALL
    )
    objects = _optional(
        properties=st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        required=st.lists(st.sampled_from("abc"), max_size=2),
        additionalProperties=inner | st.booleans(),
        minProperties=_SMALL,
        maxProperties=_SMALL,
    )
    branches = st.lists(inner, min_size=1, max_size=3)
    heads = st.sampled_from(["anyOf", "oneOf", "allOf"]).flatmap(lambda head: branches.map(lambda of: {head: of}))
    # What may not stand together stands together now and then: then the check has to notice.
    odd = st.builds(lambda one, other: {**one, **other}, inner.filter(lambda it: isinstance(it, dict)), heads)
    return _with_type("array", arrays) | _with_type("object", objects) | heads | odd


_NUMBERS = st.integers(-3, 12) | st.sampled_from([0.5, 2.5, -1.25])
_LEAVES = (
    st.just({})
    | st.just(True)  # noqa: FBT003 - a schema
    | _with_type("string", _optional(minLength=_SMALL, maxLength=_SMALL))
    | _with_type("string", _optional(pattern=_PATTERNS))
    | _with_type("string", _optional(format=st.sampled_from(["date", "ipv4", "email", "uuid"])))
    | _with_type("integer", _optional(minimum=st.integers(-3, 12), maximum=st.integers(-3, 12)))
    | _with_type("number", _optional(minimum=_NUMBERS, exclusiveMaximum=_NUMBERS, maximum=_NUMBERS))
    | _with_type(["string", "integer"], _optional(minLength=_SMALL, minimum=_NUMBERS))
    | st.sampled_from([{"type": "null"}, {"type": "boolean"}, {"type": ["null", "array"]}])
    | st.lists(_ANY_VALUE, min_size=1, max_size=3).map(lambda values: {"enum": values})
    | st.builds(lambda value, kind: {"const": value, "type": kind}, _ANY_VALUE, st.sampled_from(["string", "integer"]))
    | st.just({"$ref": "#/$defs/d"})
)
_SCHEMAS = st.recursive(_LEAVES, _containers, max_leaves=5).filter(lambda schema: isinstance(schema, dict))


@_SETTINGS
@given(schema=_SCHEMAS, definition=_LEAVES, values=st.lists(_ANY_VALUE, min_size=15, max_size=15))
def test_what_the_engine_accepts_satisfies_the_schema(
    schema: dict[str, Any], definition: object, values: list[object]
) -> None:
    """No value that the engine would write for a schema that passed fails it, in the caller's form or in ours."""
    own = {**schema, "$defs": {"d": definition}}
    try:
        canonical = canonical_json_schema(json.dumps(own))
    except ValueError:
        assume(False)  # noqa: FBT003 - refused, and nothing to compare
    try:
        grammar = xgrammar.Grammar.from_json_schema(canonical)
    except RuntimeError:
        assume(False)  # noqa: FBT003 - the worker, which compiles, refuses it
    judges = [jsonschema.Draft202012Validator(each) for each in (own, json.loads(canonical))]
    for value in values:
        for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, separators=(",", ":"))):
            if _is_grammar_accept_string(grammar, text):
                assert [True, True] == [judge.is_valid(value) for judge in judges], (own, text)
