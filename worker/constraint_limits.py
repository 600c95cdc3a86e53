"""What a constraint may be before anything is compiled: the bounds of ``generation.proto``, checked once more.

A gateway checks more, keyword by keyword, so that what the compiler enforces is what the caller wrote. This is what
keeps the worker whole when something else than a gateway calls it.
"""

from __future__ import annotations

import json
import re
from typing import Any

import re2

from worker.engine import Constraint, ConstraintKind

_MAX_SCHEMA_CHARACTERS = 65_536
_MAX_SCHEMA_DEPTH = 32
_MAX_REGEX_CHARACTERS = 4_096
_MAX_REGEX_BYTES = 1 << 20  # of RE2's compiled program
_MAX_CHOICES, _MAX_CHOICE_CHARACTERS = 1_024, 4_096
_MAX_GRAMMAR_CHARACTERS = 65_536


def find_problem(constraint: Constraint) -> str | None:
    """What is wrong with ``constraint`` at first sight, or None. Linear in its size."""
    match constraint.kind:
        case ConstraintKind.JSON_SCHEMA:
            return _schema_problem(constraint.text)
        case ConstraintKind.REGEX:
            return _regex_problem(constraint.text)
        case ConstraintKind.CHOICE:
            return _choice_problem(constraint.choices)
        case ConstraintKind.GRAMMAR:
            return _grammar_problem(constraint.text)
        case ConstraintKind.JSON_OBJECT:
            return None


def regex_options() -> re2.Options:
    """The options under which expressions are compiled, here and where the finished text is judged."""
    options = re2.Options()
    options.max_mem = _MAX_REGEX_BYTES
    options.log_errors = False
    return options


def _schema_problem(text: str) -> str | None:
    if len(text) > _MAX_SCHEMA_CHARACTERS:
        return f"is longer than {_MAX_SCHEMA_CHARACTERS} characters"
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    if not isinstance(schema, dict):
        return "is not a JSON object"
    level: list[Any] = [schema]
    for _ in range(_MAX_SCHEMA_DEPTH):
        reference = next((node["$ref"] for node in level if isinstance(node, dict) and "$ref" in node), "#")
        if not (isinstance(reference, str) and reference.startswith("#")):
            return "has a $ref that does not point into the schema itself"
        level = [child for node in level for child in _children(node)]
        if not level:
            return None
    return f"is nested more than {_MAX_SCHEMA_DEPTH} levels deep"


def _children(node: Any) -> list[Any]:
    values = node.values() if isinstance(node, dict) else node
    return [value for value in values if isinstance(value, dict | list)]


def _regex_problem(text: str) -> str | None:
    if len(text) > _MAX_REGEX_CHARACTERS:
        return f"is longer than {_MAX_REGEX_CHARACTERS} characters"
    if "\0" in text:
        return "has a NUL character"
    try:
        re2.compile(text, regex_options())
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        return f"is not accepted by RE2: {reason.decode(errors='replace') if isinstance(reason, bytes) else reason}"
    return None


def _choice_problem(choices: tuple[str, ...]) -> str | None:
    if not 1 <= len(choices) <= _MAX_CHOICES:
        return f"needs 1 to {_MAX_CHOICES} texts"
    if not all(1 <= len(choice) <= _MAX_CHOICE_CHARACTERS for choice in choices):
        return f"needs texts of 1 to {_MAX_CHOICE_CHARACTERS} characters"
    return None if len(set(choices)) == len(choices) else "has the same text twice"


def _grammar_problem(text: str) -> str | None:
    if len(text) > _MAX_GRAMMAR_CHARACTERS:
        return f"is longer than {_MAX_GRAMMAR_CHARACTERS} characters"
    if "\0" in text:
        return "has a NUL character"
    # Without such a line vLLM would read the text as a Lark grammar, another language.
    if not any("::=" in re.sub(r"(#|//).*$", "", line) for line in text.split("\n")):
        return "has no rule 'root ::= ...'"
    return None
