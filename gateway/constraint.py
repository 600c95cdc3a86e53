"""Static checks of an output constraint, and its canonical form, which the worker is given.

All of them are linear in the constraint's size. Whether it compiles within time and memory is judged by the worker,
with the engine's own compiler, and told with CONSTRAINT_REJECTED.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from gateway.json_schema import InvalidSchemaError, canonical_json_schema
from gateway.regular_expression import canonical_regex
from gateway.violations import Violations
from tidegate.inference.v1 import generation_pb2, model_pb2

_MAX_CHOICES = 1024
_MAX_CHOICE_CHARACTERS = 4096
_MAX_GRAMMAR_CHARACTERS = 65_536
_ROOT_RULE = re.compile(r"^[ \t]*root[ \t]*::=", re.MULTILINE)

_KINDS = {
    "json_schema": model_pb2.CONSTRAINT_KIND_JSON_SCHEMA,
    "regex": model_pb2.CONSTRAINT_KIND_REGEX,
    "choice": model_pb2.CONSTRAINT_KIND_CHOICE,
    "grammar": model_pb2.CONSTRAINT_KIND_GRAMMAR,
    "json_object": model_pb2.CONSTRAINT_KIND_JSON_OBJECT,
}


def parse_constraint(
    constraint: generation_pb2.OutputConstraint,
    supported: AbstractSet[model_pb2.ConstraintKind.ValueType],
    violations: Violations,
) -> generation_pb2.OutputConstraint:
    """The canonical form of ``constraint``; what is wrong with it goes into ``violations``."""
    canonical = generation_pb2.OutputConstraint()
    canonical.CopyFrom(constraint)
    canonical.DiscardUnknownFields()  # as in gateway/sampling.py
    kind = constraint.WhichOneof("kind")
    if kind is None:
        violations.add("constraint", "exactly one kind is required")
        return canonical
    field = f"constraint.{kind}"
    if _KINDS[kind] not in supported:
        violations.add(field, "the model's engine does not support this kind of constraint")
    elif kind == "json_schema":
        try:
            canonical.json_schema = canonical_json_schema(constraint.json_schema)
        except InvalidSchemaError as error:
            for finding in error.findings:
                violations.add(field, finding)
    elif kind == "regex":
        try:
            canonical.regex = canonical_regex(constraint.regex)
        except ValueError as error:
            violations.add(field, str(error))
    elif kind == "choice":
        _check_choices(constraint.choice.choices, violations)
    elif kind == "grammar":
        _check_grammar(constraint.grammar, violations)
    return canonical


def _check_choices(choices: Sequence[str], violations: Violations) -> None:
    field = "constraint.choice.choices"
    if not 1 <= len(choices) <= _MAX_CHOICES:
        violations.add(field, f"has to hold 1 to {_MAX_CHOICES} texts")
    seen: set[str] = set()
    for index, choice in enumerate(choices[:_MAX_CHOICES]):
        if not 1 <= len(choice) <= _MAX_CHOICE_CHARACTERS:
            violations.add(f"{field}[{index}]", f"has to be of 1 to {_MAX_CHOICE_CHARACTERS} characters")
        if choice in seen:
            violations.add(f"{field}[{index}]", "is there already")
        seen.add(choice)


def _check_grammar(grammar: str, violations: Violations) -> None:
    field = "constraint.grammar"
    if len(grammar) > _MAX_GRAMMAR_CHARACTERS:
        violations.add(field, f"is longer than {_MAX_GRAMMAR_CHARACTERS} characters")
    elif "\0" in grammar:
        violations.add(field, "has a NUL character")
    elif not _ROOT_RULE.search(grammar):
        violations.add(field, "has no rule 'root ::= ...'")
