from __future__ import annotations

import json

import pytest

from worker.constraint_limits import find_problem
from worker.engine import Constraint, ConstraintKind

K = ConstraintKind


def _nested(depth: int) -> str:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return json.dumps(schema)


@pytest.mark.parametrize(
    "constraint",
    [
        pytest.param(Constraint(kind=K.JSON_SCHEMA, text=_nested(32)), id="schema of 32 levels"),
        pytest.param(Constraint(kind=K.JSON_SCHEMA, text='{"$ref": "#/$defs/a", "$defs": {"a": {}}}'), id="own $ref"),
        pytest.param(Constraint(kind=K.REGEX, text="a" * 4_096), id="regex of 4,096"),
        pytest.param(Constraint(kind=K.CHOICE, choices=tuple(map(str, range(1_024)))), id="1,024 choices"),
        pytest.param(Constraint(kind=K.CHOICE, choices=("a" * 4_096,)), id="choice of 4,096"),
        pytest.param(Constraint(kind=K.GRAMMAR, text='root ::= "#" | "//"'), id="grammar with comment signs"),
        pytest.param(Constraint(kind=K.JSON_OBJECT), id="any object"),
    ],
)
def test_what_is_within_the_bounds_has_no_problem(constraint: Constraint) -> None:
    """The bounds of generation.proto themselves are allowed."""
    assert find_problem(constraint) is None


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        pytest.param(Constraint(kind=K.JSON_SCHEMA, text=_nested(33)), "nested more than 32", id="depth"),
        pytest.param(Constraint(kind=K.JSON_SCHEMA, text=" " * 65_537), "longer than 65536", id="size"),
        pytest.param(Constraint(kind=K.JSON_SCHEMA, text="{"), "not JSON", id="syntax"),
        pytest.param(Constraint(kind=K.JSON_SCHEMA, text="[" * 60_000), "not JSON", id="brackets"),
        pytest.param(Constraint(kind=K.JSON_SCHEMA, text="true"), "not a JSON object", id="boolean"),
        pytest.param(Constraint(kind=K.JSON_SCHEMA, text='{"items": {"$ref": "file:///"}}'), "$ref", id="file"),
        pytest.param(Constraint(kind=K.JSON_SCHEMA, text='{"$ref": 7}'), "$ref", id="number as $ref"),
        pytest.param(Constraint(kind=K.REGEX, text="a" * 4_097), "longer than 4096", id="long regex"),
        pytest.param(Constraint(kind=K.REGEX, text="(?<=a)b"), "RE2", id="look-behind"),
        pytest.param(Constraint(kind=K.REGEX, text="a\0"), "NUL", id="NUL"),
        pytest.param(Constraint(kind=K.CHOICE), "1 to 1024 texts", id="no choice"),
        pytest.param(Constraint(kind=K.CHOICE, choices=("a", "")), "1 to 4096 characters", id="empty choice"),
        pytest.param(Constraint(kind=K.CHOICE, choices=("a", "a")), "twice", id="same choice"),
        pytest.param(Constraint(kind=K.GRAMMAR, text="a" * 65_537), "longer than 65536", id="long grammar"),
        pytest.param(Constraint(kind=K.GRAMMAR, text='start: "a"'), "no rule", id="Lark"),
        pytest.param(Constraint(kind=K.GRAMMAR, text="# root ::= x"), "no rule", id="rule in a comment"),
    ],
)
def test_what_is_outside_is_named(constraint: Constraint, expected: str) -> None:
    """The text goes to the caller."""
    problem = find_problem(constraint)
    assert problem is not None
    assert expected in problem
