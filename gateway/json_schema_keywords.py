"""The keywords of JSON Schema (draft 2020-12) that xgrammar 0.2.8 enforces, and the values that they may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

DIALECTS = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-07/schema",
    }
)
FORMATS = (
    *("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "json-pointer"),
    *("relative-json-pointer", "time", "uri", "uri-reference", "uri-template", "uuid"),
)
ANNOTATIONS = frozenset(
    {"$comment", "$schema", "default", "deprecated", "description", "examples", "readOnly", "title", "writeOnly"}
)
DEFINITIONS = ("$defs", "definitions")
BRANCHES = ("allOf", "anyOf", "oneOf")


class Keyword(NamedTuple):
    """A keyword that needs one of ``types`` beside it, if there are any. ``expected`` describes a valid value."""

    is_valid: Callable[[Any], bool]
    expected: str
    types: frozenset[str] = frozenset()


def is_number(value: Any) -> bool:
    """Whether JSON calls it a number; a bool is an int to Python."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_string(value: Any) -> bool:
    """Whether it is a string."""
    return isinstance(value, str)


def is_schema(value: Any) -> bool:
    """Whether it can be a schema."""
    return isinstance(value, dict | bool)


def is_schema_list(value: Any) -> bool:
    """Whether it is a list of schemas, at least one."""
    return isinstance(value, list) and len(value) > 0 and all(map(is_schema, value))


def is_schema_map(value: Any) -> bool:
    """Whether it is an object whose values are schemas."""
    return isinstance(value, dict) and all(map(is_schema, value.values()))


def is_name_list(value: Any) -> bool:
    """Whether it is a list of strings."""
    return isinstance(value, list) and all(map(is_string, value))


def is_value_list(value: Any) -> bool:
    """Whether it is a list with anything in it."""
    return isinstance(value, list) and len(value) > 0


def type_names(value: Any) -> frozenset[str] | None:
    """The types that a value of ``type`` names, or None if it is not one."""
    names = [value] if isinstance(value, str) else value
    return frozenset(names) if is_name_list(names) and names and TYPES.keys() >= set(names) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_anything(_value: Any) -> bool:
    return True


TYPES: dict[str, Callable[[Any], bool]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "null": lambda value: value is None,
    "number": is_number,
    "object": lambda value: isinstance(value, dict),
    "string": is_string,
}

_STRING, _ARRAY, _OBJECT = frozenset({"string"}), frozenset({"array"}), frozenset({"object"})
_NUMERIC = frozenset({"integer", "number"})

KEYWORDS: dict[str, Keyword] = {
    **{name: Keyword(_is_anything, "") for name in ANNOTATIONS},
    "$schema": Keyword(lambda value: is_string(value) and value in DIALECTS, "draft 2020-12, 2019-09 or 7"),
    **{name: Keyword(is_schema_map, "an object of schemas") for name in DEFINITIONS},
    **{name: Keyword(is_schema_list, "a list of schemas") for name in BRANCHES},
    "$ref": Keyword(is_string, "a string"),
    "type": Keyword(lambda value: type_names(value) is not None, f"one or more of {', '.join(TYPES)}"),
    "const": Keyword(_is_anything, ""),
    "enum": Keyword(is_value_list, "a list of values"),
    "minLength": Keyword(_is_count, "a count", _STRING),
    "maxLength": Keyword(_is_count, "a count", _STRING),
    "pattern": Keyword(is_string, "a string", _STRING),
    "format": Keyword(lambda value: is_string(value) and value in FORMATS, f"one of {', '.join(FORMATS)}", _STRING),
    "minimum": Keyword(is_number, "a number", _NUMERIC),
    "maximum": Keyword(is_number, "a number", _NUMERIC),
    "exclusiveMinimum": Keyword(is_number, "a number", _NUMERIC),
    "exclusiveMaximum": Keyword(is_number, "a number", _NUMERIC),
    "items": Keyword(is_schema, "a schema", _ARRAY),
    "prefixItems": Keyword(is_schema_list, "a list of schemas", _ARRAY),
    "minItems": Keyword(_is_count, "a count", _ARRAY),
    "maxItems": Keyword(_is_count, "a count", _ARRAY),
    "properties": Keyword(is_schema_map, "an object of schemas", _OBJECT),
    "required": Keyword(is_name_list, "a list of names", _OBJECT),
    "additionalProperties": Keyword(is_schema, "a schema", _OBJECT),
    "minProperties": Keyword(_is_count, "a count", _OBJECT),
    "maxProperties": Keyword(_is_count, "a count", _OBJECT),
}
