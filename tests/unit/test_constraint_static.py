from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from gateway.constraint import parse_constraint
from gateway.errors import InvalidRequestError
from gateway.json_schema import canonical_json_schema
from gateway.regular_expression import canonical_regex
from gateway.violations import Violations
from tidegate.inference.v1 import generation_pb2, model_pb2

_ALL_KINDS = frozenset(model_pb2.ConstraintKind.values())


def _object(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": ["string", "null"], "maxLength": 5},
        _object(name={"type": "string", "minLength": 1}, age={"type": "integer", "minimum": 0, "maximum": 150}),
        {"type": "array", "items": {"enum": ["a", 1, None]}, "minItems": 1, "maxItems": 3},
        {"type": "array", "prefixItems": [{"type": "integer"}], "items": False},
        {"anyOf": [{"type": "string"}, {"const": 3}], "title": "Either", "default": 3},
        {"oneOf": [{"type": "string"}, {"type": ["integer", "null"]}]},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "boolean"}}},
        {"$ref": "#/$defs/tree", "$defs": {"tree": _object(children={"type": "array", "items": {"$ref": "#"}})}},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"type": "object", "properties": {"a": {}, "b": True}, "minProperties": 1, "additionalProperties": False},
        {"type": "string", "enum": ["red", "green"]},
        {"type": "string", "format": "date"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "number", "exclusiveMinimum": 0},
    ],
    ids=json.dumps,
)
def test_schemas_that_are_enforced_in_full_pass(schema: dict[str, object]) -> None:
    """They are handed on as they were written."""
    text = json.dumps(schema)
    assert text == canonical_json_schema(text)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"minLength": 2}, "minLength needs the type string"),
        ({"type": "integer", "maxLength": 2}, "maxLength needs the type string"),
        ({"type": "string", "enum": ["a", 1]}, "not of the type"),
        ({"enum": ["a"], "minLength": 1, "type": "string"}, "cannot stand together"),
        ({"type": "object", "anyOf": [{"type": "object"}]}, "cannot stand together"),
        ({"$ref": "#/$defs/a", "description": "x", "type": "string", "$defs": {"a": {}}}, "cannot stand together"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "use anyOf"),
        ({"oneOf": [{}, {"type": "number"}]}, "use anyOf"),
        ({"allOf": [{}, {}]}, "allOf with more than one"),
        ({"not": {}}, "'not' is not supported"),
        ({"type": "integer", "multipleOf": 2}, "'multipleOf' is not supported"),
        ({"type": "string", "nullable": True}, "'nullable' is not supported"),
        ({"type": "string", "format": "colour"}, "format is not one of"),
        ({"type": "string", "format": "date", "maxLength": 10}, "lengths cannot stand beside"),
        ({"type": "string", "format": "date", "pattern": "a"}, "cannot stand together"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength is above maxLength"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "required names 'a'"),
        ({"type": "object", "minProperties": 1}, "need properties"),
        (
            {"type": "object", "properties": {"a": {}}, "additionalProperties": True, "maxProperties": 1},
            "no additional",
        ),
        ({"type": "object", "properties": {"a": False}}, "false accepts nothing"),
        ({"type": "text"}, "type is not"),
        ({"type": []}, "type is not"),
        ({"type": "array", "items": [{}]}, "items is not a schema"),
        ({"type": "string", "maxLength": -1}, "maxLength is not a count"),
        ({"type": "string", "maxLength": True}, "maxLength is not a count"),
        ({"enum": []}, "enum is not a list of values"),
        ({"anyOf": []}, "anyOf is not a list of schemas"),
        ({"$ref": "#/$defs/none"}, r"\$ref is not"),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {}}}, r"\$ref is not"),
        ({"$ref": "other.json"}, r"\$ref is not"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "leads back to itself"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "draft 2020-12"),
        ({"type": "string", "pattern": "(?i)a"}, "unsupported group"),
        ({"type": "string", "pattern": '^"$'}, "no character can match"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_would_not_be_enforced_is_refused(schema: dict[str, object], complaint: str) -> None:
    """The description names the keyword."""
    with pytest.raises(ValueError, match=complaint):
        canonical_json_schema(json.dumps(schema))


def test_each_finding_tells_its_place() -> None:
    """A JSON Pointer leads to the subschema."""
    schema = _object(a={"type": "array", "items": {"anyOf": [{"type": "string"}, {"not": {}}]}})
    with pytest.raises(ValueError, match="at '/properties/a/items/anyOf/1' the keyword 'not'"):
        canonical_json_schema(json.dumps(schema))


def test_patterns_of_a_schema_are_made_canonical() -> None:
    """A pattern matches the whole string, and nothing that JSON would have to escape."""
    schema = json.loads(canonical_json_schema(json.dumps({"type": "string", "pattern": r"^\d+.$"})))
    assert {"type": "string", "pattern": '^(?:[0-9]+[^\x01-\x1f\\"\\\\\\x00])$'} == schema


@pytest.mark.parametrize(
    ("pattern", "canonical"),
    [
        ("abc", "abc"),
        ("^abc$", "abc"),
        ("(a|b)+?", "(?:a|b)+"),
        (r"\d{2,4}", "[0-9]{2,4}"),
        (r"\w", r"[0-9A-Z\_a-z]"),
        (r"[\s\S]", r"(?:[^\n]|\n)"),
        (".", r"[^\n]"),
        (r"[^\s]", r"[^\t-\n\f-\r ]"),
        (r"[\^a]", r"[a\^]"),
        (r"\^", r"\^"),
        ("(?P<year>[0-9]{4})", "(?:[0-9]{4})"),
        ("a{,2}", r"a\{\,2\}"),
        (r"a\$", r"a\$"),
        (r"[]a-]", r"[\-\]a]"),
        (r"[\d-z]", r"[\-0-9z]"),
        (r"\x{e9}é", "éé"),
        ("", ""),
    ],
)
def test_regex_is_written_in_the_common_language(pattern: str, canonical: str) -> None:
    """Classes, escapes, groups and anchors in the one form that RE2 and xgrammar read alike."""
    assert canonical == canonical_regex(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?i)a", "(?s:.)", "a^b", "a$b", "^a|^b", r"\bword\b", r"\Aa\z", r"\pL", r"[\p{Greek}]", "[[:alpha:]]"),
        *(r"\Qa.b\E", r"\C", r"\1", r"\012", "(?=a)a", "(?<!a)b", r"(a)\1", "a**", "a++", "[b-a]", "a{1001}", "(", ")"),
        *("*", "[^\\x00-\\x{10FFFF}]", "[]"),
    ],
)
def test_regex_that_engines_read_differently_is_refused(pattern: str) -> None:
    """What has no common form is not guessed at."""
    with pytest.raises(ValueError, match=r"unsupported|anchor|not accepted by RE2|no character"):
        canonical_regex(pattern)


def _patterns(patterns: list[str]) -> str:
    return json.dumps({"anyOf": [{"type": "string", "pattern": pattern} for pattern in patterns]})


_DEEP = '{"type": "array", "items": ' * 100 + "{}" + "}" * 100
_MUTUAL = '{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}'
_CHAIN = {str(index): {"anyOf": [{"$ref": f"#/$defs/{index + 1}"}] * 2} for index in range(800)} | {"800": {}}
_MANY_NAMES = [str(index) for index in range(4000)]


@pytest.mark.parametrize(
    ("pattern", "passes"),
    [
        *((pattern, True) for pattern in ("(a+)+b", "(a|a)*b", "(a|aa)+$", "(.*a){20}", "(x+x+)+y", "([a-z]+)*1")),
        *((pattern, True) for pattern in (".*" * 2000, "|" * 4000, "a?" * 2000, "(?:" * 900 + ")" * 900, ".{1,1000}")),
        *((pattern, False) for pattern in ("((a{1,100}){1,100}){1,100}", "a{1,1000}" * 450, "." * 4096, "(" * 4096)),
        *((pattern, False) for pattern in ("[" * 4096, r"\pL" * 1300, "\\", "[^" * 2000, "a" * 4097, "(?=(a+))*")),
    ],
    ids=lambda value: str(value)[:30],
)
def test_hostile_regex_is_judged(pattern: str, passes: bool) -> None:  # noqa: FBT001 - a column of the table
    """What backtracks elsewhere is harmless to automata; what would become a large automaton is refused."""
    assert passes == _passes(generation_pb2.OutputConstraint(regex=pattern))


@pytest.mark.parametrize(
    ("schema", "passes"),
    [
        (_DEEP, False),
        ("[" * 60_000, False),
        (json.dumps({"enum": _MANY_NAMES}), True),
        (json.dumps({"enum": [f"value {index}" for index in range(10_000)]}), False),
        (json.dumps({"type": "object", "properties": dict.fromkeys(_MANY_NAMES, True)}), True),
        (json.dumps({"type": "object", "properties": {}, "required": _MANY_NAMES}), False),
        (json.dumps({"anyOf": [{}] * 16_000}), True),
        (json.dumps({"oneOf": [{"type": "null"}] * 3500}), False),
        (json.dumps({"$ref": "#/$defs/0", "$defs": _CHAIN}), True),
        (_MUTUAL, False),
        ('{"$ref": "file:///etc/passwd"}', False),
        (json.dumps(dict.fromkeys(_MANY_NAMES, 1)), False),
        (json.dumps({"type": "string", "pattern": "((a{1,100}){1,100}){1,100}"}), False),
        (_patterns([".{1,1000}"] * 1000), True),
        (_patterns([f".{{1,{most}}}" for most in range(1000, 200, -1)]), False),
        ('{"type": "integer", "minimum": ' + "9" * 5000 + "}", False),
    ],
    ids=lambda value: str(value)[:30],
)
def test_hostile_schema_is_judged(schema: str, passes: bool) -> None:  # noqa: FBT001 - a column of the table
    """Neither depth nor number nor references make the check recurse or multiply."""
    assert passes == _passes(generation_pb2.OutputConstraint(json_schema=schema))


def _passes(constraint: generation_pb2.OutputConstraint) -> bool:
    violations = Violations()
    parse_constraint(constraint, _ALL_KINDS, violations)
    try:
        violations.raise_if_any()
    except InvalidRequestError:
        return False
    return True


def test_supported_kinds_are_the_models() -> None:
    """A kind that the engine lacks is refused by its field."""
    violations = Violations()
    parse_constraint(generation_pb2.OutputConstraint(regex="a"), frozenset(), violations)
    with pytest.raises(InvalidRequestError) as caught:
        violations.raise_if_any()
    assert ["constraint.regex"] == [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize("grammar", ['root ::= "a"', 'word ::= [a-z]+\n  root ::= word " " word # two\n'])
def test_grammar_needs_a_root(grammar: str) -> None:
    """A rule `root` in any line will do."""
    violations = Violations()
    parse_constraint(generation_pb2.OutputConstraint(grammar=grammar), _ALL_KINDS, violations)
    violations.raise_if_any()


def test_where_a_schema_is_wrong_does_not_fill_memory() -> None:
    """Each child of a name of 32,000 characters had a copy of it: a schema of 65,000 took 1.4 GB."""
    schema = {"type": "object", "properties": {"😀" * 32_000: {"type": "array", "prefixItems": [{}] * 8_000}}}
    tracemalloc.start()
    try:
        canonical_json_schema(json.dumps(schema, ensure_ascii=False))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20


def test_many_patterns_do_not_add_up() -> None:
    """Each was within its bounds, and 800 of them took a thread 4 s, most of them with the interpreter's lock."""
    before = time.thread_time()
    with pytest.raises(ValueError, match="together with the schema's others"):
        canonical_json_schema(_patterns([f".{{1,{most}}}" for most in range(1000, 200, -1)]))
    assert time.thread_time() - before < 1
