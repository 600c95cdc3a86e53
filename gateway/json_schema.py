"""Checks a JSON Schema against what xgrammar 0.2.8 enforces, before any engine sees it.

xgrammar leaves out silently what it does not know: keywords without a ``type``, siblings of ``anyOf``, ``required``
names that ``properties`` lacks, ``multipleOf``. A schema that passes here is enforced in full, so that the finished
text cannot fail the same schema; each rule was found by comparing xgrammar's verdict with jsonschema's
(tests/unit/test_constraint_static_xgrammar.py). The values of keywords are checked by a table and not by the
metaschema, for which jsonschema takes six seconds on 64 KiB of hostile schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from gateway.json_schema_keywords import (
    ANNOTATIONS,
    BRANCHES,
    DEFINITIONS,
    KEYWORDS,
    TYPES,
    is_name_list,
    is_number,
    is_schema,
    is_schema_list,
    is_schema_map,
    is_value_list,
    type_names,
)
from gateway.json_schema_references import has_empty_cycle, reference_target
from gateway.regular_expression import canonical_json_pattern
from gateway.strict_json import parse_strict_json
from gateway.violations import quoted

MAX_CHARACTERS = 65_536
MAX_DEPTH = 32

# Of all patterns that differ, after ten of the largest: no longer than a quarter of a second.
_MAX_PATTERN_INSTRUCTIONS = 200_000
_MAX_FINDINGS = 16  # more than a reader wants, and the walk can end
_MAX_POINTER_CHARACTERS = 64

# Each has to stand alone, for what stands beside it is not enforced; only const and enum bear a type.
_HEADS = frozenset({"$ref", "const", "enum", *BRANCHES})
_LIMIT_PAIRS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
)


class InvalidSchemaError(ValueError):
    """The schema cannot be enforced. ``findings`` are for the caller to read, each with a JSON Pointer."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("; ".join(findings))
        self.findings = findings


def canonical_json_schema(text: str) -> str:
    """The schema with its patterns in canonical form. Raises ``InvalidSchemaError``."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidSchemaError([f"is longer than {MAX_CHARACTERS} characters"])
    try:
        root = parse_strict_json(text, max_depth=MAX_DEPTH)
    except ValueError as error:
        raise InvalidSchemaError([str(error)]) from None
    if not isinstance(root, dict):
        raise InvalidSchemaError(["is not a JSON object"])
    check = _Check(root)
    check.run()
    if check.findings:
        raise InvalidSchemaError(check.findings)
    return json.dumps(root, ensure_ascii=False) if check.has_patterns else text


class _Check:
    """Walks every subschema with a stack of its own, and rewrites patterns as it goes."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self.findings: list[str] = []
        self._patterns: dict[str, str] = {}  # in canonical form
        self._pattern_instructions = 0

    @property
    def has_patterns(self) -> bool:
        """Whether the schema was changed."""
        return bool(self._patterns)

    def run(self) -> None:
        stack: list[tuple[str, Any]] = [("", self._root)]
        while stack and len(self.findings) < _MAX_FINDINGS:
            pointer, schema = stack.pop()
            if isinstance(schema, dict):
                self._check_keywords(pointer, schema)
                self._check_heads(pointer, schema)
                self._check_limits(pointer, schema)
                self._check_object(pointer, schema)
                stack.extend(reversed([(_below(pointer, place), child) for place, child in _children(schema)]))
            elif not schema and not pointer.endswith(("/additionalProperties", "/items")):
                self._find(pointer, "false accepts nothing")
        if not self.findings and has_empty_cycle(self._root):
            self._find("", "a $ref leads back to itself")

    def _find(self, pointer: str, what: str) -> None:
        place = pointer if len(pointer) <= _MAX_POINTER_CHARACTERS else f"...{pointer[-_MAX_POINTER_CHARACTERS:]}"
        self.findings.append(f"at {place!a} {what}")

    def _check_keywords(self, pointer: str, schema: dict[str, Any]) -> None:
        types = type_names(schema.get("type")) or frozenset()
        for name, value in list(schema.items()):
            keyword = KEYWORDS.get(name)
            if keyword is None:
                self._find(pointer, f"the keyword {quoted(name)} is not supported")
            elif not keyword.is_valid(value):
                self._find(pointer, f"{name} is not {keyword.expected}")
            elif keyword.types and not keyword.types & types:
                self._find(pointer, f"{name} needs the type {' or '.join(sorted(keyword.types))} beside it")
            elif name == "$ref" and reference_target(self._root, value) is None:
                self._find(pointer, "$ref is not '#', '#/$defs/NAME' or '#/definitions/NAME' of this schema")
            elif name == "pattern":
                self._rewrite_pattern(pointer, schema)

    def _rewrite_pattern(self, pointer: str, schema: dict[str, Any]) -> None:
        pattern = schema["pattern"]
        if pattern not in self._patterns and self._pattern_instructions <= _MAX_PATTERN_INSTRUCTIONS:
            try:
                self._patterns[pattern], instructions = canonical_json_pattern(pattern)
            except ValueError as error:
                self._find(pointer, f"pattern {error}")
                return
            self._pattern_instructions += instructions
        if self._pattern_instructions > _MAX_PATTERN_INSTRUCTIONS:
            limit = _MAX_PATTERN_INSTRUCTIONS
            self._find(pointer, f"pattern makes more than {limit} instructions, together with the schema's others")
            return
        schema["pattern"] = self._patterns[pattern]

    def _check_heads(self, pointer: str, schema: dict[str, Any]) -> None:
        assertions = [name for name in schema if name not in ANNOTATIONS and name not in DEFINITIONS]
        heads = [name for name in assertions if name in _HEADS]
        if set(assertions) in ({"enum", "type"}, {"const", "type"}):
            values = schema["enum"] if is_value_list(schema.get("enum")) else [schema.get("const")]
            tests = [TYPES[name] for name in type_names(schema["type"]) or ()]
            if not all(any(test(value) for test in tests) for value in values):
                self._find(pointer, f"{heads[0]} has a value that is not of the type beside it")
        elif heads and len(assertions) > 1:
            self._find(pointer, f"{', '.join(sorted(assertions)[:8])} cannot stand together")
        if is_schema_list(schema.get("allOf")) and len(schema["allOf"]) > 1:
            self._find(pointer, "allOf with more than one schema is not supported")
        if is_schema_list(schema.get("oneOf")) and not _are_disjoint_by_type(schema["oneOf"]):
            self._find(pointer, "oneOf needs schemas of different types; use anyOf")

    def _check_limits(self, pointer: str, schema: dict[str, Any]) -> None:
        if "pattern" in schema and "format" in schema:
            self._find(pointer, "pattern and format cannot stand together")
        if schema.keys() & {"pattern", "format"} and schema.keys() & {"minLength", "maxLength"}:
            self._find(pointer, "lengths cannot stand beside pattern or format")
        for low, high in _LIMIT_PAIRS:
            if is_number(schema.get(low)) and is_number(schema.get(high)) and schema[low] > schema[high]:
                self._find(pointer, f"{low} is above {high}")

    def _check_object(self, pointer: str, schema: dict[str, Any]) -> None:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if isinstance(properties, dict) and is_name_list(required):
            missing = next((name for name in required if name not in properties), None)
            if missing is not None:
                self._find(pointer, f"required names {quoted(missing)}, which properties lacks")
        # xgrammar counts a name that is written twice as two properties.
        is_closed = "properties" in schema and schema.get("additionalProperties", False) is False
        if schema.keys() & {"minProperties", "maxProperties"} and not is_closed:
            self._find(pointer, "minProperties and maxProperties need properties, and no additionalProperties")


def _below(pointer: str, place: str) -> str:
    """No more of it than is shown: each of ten thousand children would have its own copy of a long name."""
    return f"{pointer}/{place}"[-_MAX_POINTER_CHARACTERS - 1 :]


def _children(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The subschemas, each with its place. A value that is none has been found already."""
    for name in ("items", "additionalProperties"):
        if is_schema(schema.get(name)):
            yield name, schema[name]
    for name in ("prefixItems", *BRANCHES):
        if is_schema_list(schema.get(name)):
            yield from ((f"{name}/{index}", child) for index, child in enumerate(schema[name]))
    for name in ("properties", *DEFINITIONS):
        if is_schema_map(schema.get(name)):
            yield from ((f"{name}/{key}", child) for key, child in schema[name].items())


def _are_disjoint_by_type(branches: list[Any]) -> bool:
    """Whether each branch names types that no other accepts: then anyOf, which is what is enforced, means the same."""
    accepted: list[set[str]] = []
    for branch in branches:
        names = type_names(branch.get("type")) if isinstance(branch, dict) else None
        if names is None:
            return False
        accepted.append({"number" if name == "integer" else name for name in names})
    return not any(one & other for one, other in combinations(accepted, 2))
