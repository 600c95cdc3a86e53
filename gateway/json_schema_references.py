"""Follows ``$ref`` inside one JSON Schema. Nothing is ever fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.json_schema_keywords import BRANCHES, DEFINITIONS


def reference_target(root: dict[str, Any], reference: str) -> Any:
    """The schema that ``#``, ``#/$defs/NAME`` or ``#/definitions/NAME`` means; None for every other reference.

    Other places could hold what is no schema, such as a default, and xgrammar does not unescape ``~`` and ``%``.
    """
    if reference == "#":
        return root
    for group in DEFINITIONS:
        name = reference.removeprefix(f"#/{group}/")
        if name != reference and not set(name) & set("~%/") and isinstance(root.get(group), dict):
            return root[group].get(name)
    return None


def has_empty_cycle(root: dict[str, Any]) -> bool:
    """Whether some schema refers to itself without a step into the value, such as ``{"$ref": "#"}``.

    Every reference of ``root`` has a target.
    """
    finished: set[int] = set()
    definitions = [schema for group in DEFINITIONS for schema in root.get(group, {}).values()]
    for start in (root, *definitions):
        path: set[int] = set()
        stack: list[tuple[Any, bool]] = [(start, False)]
        while stack:
            schema, is_left = stack.pop()
            if is_left:
                path.discard(id(schema))
                finished.add(id(schema))
            elif id(schema) in path:
                return True
            elif isinstance(schema, dict) and id(schema) not in finished:
                path.add(id(schema))
                stack.append((schema, True))
                stack.extend((alternative, False) for alternative in _alternatives(root, schema))
    return False


def _alternatives(root: dict[str, Any], schema: dict[str, Any]) -> Iterator[Any]:
    """The schemas that judge the same value as ``schema`` does."""
    if "$ref" in schema:
        yield reference_target(root, schema["$ref"])
    for branch in BRANCHES:
        yield from schema.get(branch, ())
