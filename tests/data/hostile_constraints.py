"""Constraints made to stall, exhaust or crash whoever compiles or obeys them, as (name, constraint)."""

from __future__ import annotations

import json
from typing import Any

from worker.engine import Constraint, ConstraintKind


def _schema(schema: Any) -> Constraint:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return Constraint(kind=ConstraintKind.JSON_SCHEMA, text=text)


def _regex(text: str) -> Constraint:
    return Constraint(kind=ConstraintKind.REGEX, text=text)


def _grammar(text: str) -> Constraint:
    return Constraint(kind=ConstraintKind.GRAMMAR, text=text)


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _doubling(levels: int) -> dict[str, Any]:
    """Each level can be reached in two ways: 2**levels paths."""
    definitions: dict[str, Any] = {f"d{levels}": {"type": "string"}}
    for level in range(levels):
        below = {"$ref": f"#/$defs/d{level + 1}"}
        definitions[f"d{level}"] = {"anyOf": [below, {"type": "array", "items": below}]}
    return {"$ref": "#/$defs/d0", "$defs": definitions}


# The first word of a name says what is expected of the worker's own checks: refused, or either way.
HOSTILE_CONSTRAINTS: dict[str, Constraint] = {
    "refused: nested quantifiers": _regex("(a+)+b"),
    "refused: nested quantifiers over two": _regex("(x+x+)+y"),
    "refused: three stars": _regex("((a*)*)*b"),
    "refused: words of any length, 500 times": _regex(r"(\w+\s?){1,500}"),
    "refused: an e-mail address that backtracks": _regex(r"([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*@[a-z0-9]+"),
    "refused: repetition of repetition": _regex("((a|b){1,1000}){1,1000}c"),
    "refused: three repetitions": _regex("((a{1,100}){1,100}){1,100}"),
    "refused: a thousand unlike characters": _regex(r"[^\n]{0,1000}"),
    "refused: look-ahead": _regex("(?=a)b"),
    "refused: back reference": _regex(r"(a+)\1"),
    "refused: open groups": _regex("(" * 4_000),
    "refused: NUL": _regex("a\0b"),
    "refused: 4,097 characters": _regex("a" * 4_097),
    "refused: every script": _regex(r"\p{L}{1,900}"),
    "either: alternatives that are alike": _regex("(a|a)*b"),
    "either: alternatives that overlap": _regex("(a|ab|abc|abcd|b|bc|c)*z"),
    "either: 500 optional before 500": _regex("(a?){500}a{500}"),
    "either: a thousand groups": _regex("(" * 1_000 + "a" + ")" * 1_000),
    "either: eight runs of anything": _regex(".*.*.*.*.*.*.*=.*"),
    "refused: depth 100": _schema(_nested(100)),
    "either: depth 15": _schema(_nested(15)),
    "refused: 10,000 values": _schema({"enum": [f"value-{index:05}" for index in range(10_000)]}),
    "either: 5,000 values": _schema({"enum": [f"v{index:05}" for index in range(5_000)]}),
    "refused: nothing but itself": _schema({"$ref": "#"}),
    "refused: two that refer to each other": _schema(
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    ),
    "refused: another host": _schema({"$ref": "http://169.254.169.254/latest"}),
    "refused: a string of up to a million": _schema({"type": "string", "maxLength": 1_000_000}),
    "refused: not JSON": _schema('{"type":'),
    "refused: a million brackets": _schema("[" * 60_000),
    "either: 2**25 paths": _schema(_doubling(14)),
    "either: 800 optional properties": _schema(
        {"type": "object", "properties": {f"p{index}": {"type": "string"} for index in range(800)}}
    ),
    "either: a million items at least": _schema({"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000}),
    "either: a tree": _schema({"type": "array", "items": {"$ref": "#"}}),
    "either: an integer of 400 digits": _schema('{"type": "integer", "minimum": 0, "maximum": ' + "9" * 400 + "}"),
    "refused: every split of a word": _grammar('root ::= s\ns ::= s s | "a"'),
    "refused: every split in three": _grammar('root ::= s\ns ::= s s | s s s | "a" | ""'),
    "refused: a rule that is itself": _grammar("root ::= root"),
    "refused: no such rule": _grammar("root ::= x"),
    "refused: another language": _grammar('start: "a"+'),
    "either: 2**40 letters": _grammar(
        "\n".join(["root ::= a0", *(f"a{level} ::= a{level + 1} a{level + 1}" for level in range(40)), 'a40 ::= "x"'])
    ),
    "either: 1,024 long choices": Constraint(
        kind=ConstraintKind.CHOICE, choices=tuple(f"choice {index} {'x' * 100}" for index in range(1_024))
    ),
}
