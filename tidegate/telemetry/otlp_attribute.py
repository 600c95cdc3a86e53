"""How the values of one attribute are written in OTLP. Pure.

Most values come again with every request: names, and counts of which all but the last bytes are the same. What is
written once is kept, as far as there is room; protobuf writes it, but for lengths and for what is as long as its length
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.util.types import AttributeValue

Value = str | int | float | tuple[str, ...] | tuple[float, ...]

# Of one attribute; more texts than that are ids, of which none comes again.
_KEPT_TEXTS: Final = 256
# Bytes whose length takes one byte.
_SHORT: Final = 0x7F
_MORE: Final = 0x80  # of a varint: there are further bytes
_BYTES: Final = tuple(bytes((number,)) for number in range(256))
_DOUBLE: Final = Struct("<d").pack
_DOUBLE_BYTES: Final = 8
# Numbers of more bytes are left to protobuf.
_VARINT_BYTES: Final = 4
_GREATEST: Final = 1 << 7 * _VARINT_BYTES
# Tags of fields: of an attribute in a span, of the value in it, and of a list that is one. Of what stands in a list,
# with its length, if that is known.
_ATTRIBUTE: Final = b"\x4a"
_VALUE: Final = b"\x12"
_LIST: Final = b"\x2a"
_LISTED: Final = b"\x0a"
_LISTED_DOUBLE: Final = b"\x0a\x09\x21"


class Attribute:
    """Writes values as attributes of a span."""

    __slots__ = ("_double", "_key", "_numbers", "_text_sizes", "_texts", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = KeyValue(key=name).SerializeToString()
        self._texts: dict[str, bytes] = {}
        # All but the value, whose size is known.
        self._double = self._of_message(1.0)[:-_DOUBLE_BYTES]
        self._numbers = [self._of_message(1 << 7 * size)[: -size - 1] for size in range(_VARINT_BYTES)]
        self._text_sizes: dict[int, bytes] = {}

    def write(self, value: Value) -> bytes:
        """As a field of Span."""
        if isinstance(value, str):
            written = self._texts.get(value)
            return self._text(value) if written is None else written
        if isinstance(value, float):
            return self._double + _DOUBLE(value)
        if isinstance(value, bool):  # before int, which it also is
            return self._of_message(value)
        if isinstance(value, int):
            if not 0 <= value < _GREATEST:
                return self._of_message(value)
            number = varint(value)
            return self._numbers[len(number) - 1] + number
        return self._list(value)

    def _text(self, value: str) -> bytes:
        text = value.encode()
        size = len(text)
        if size > _SHORT:
            return self._of_message(value)
        head = self._text_sizes.get(size)
        if head is None:
            written = self._of_message("x" * size)
            head = self._text_sizes[size] = written[: len(written) - size]
        written = head + text
        if len(self._texts) < _KEPT_TEXTS:
            self._texts[value] = written
        return written

    def _list(self, values: tuple[str, ...] | tuple[float, ...]) -> bytes:
        listed = []
        for value in values:
            if isinstance(value, str):
                text = _LISTED + _sized(value.encode())
                listed.append(_LISTED + _sized(text))
            else:
                listed.append(_LISTED_DOUBLE + _DOUBLE(value))
        array = _LIST + _sized(b"".join(listed))
        return _ATTRIBUTE + _sized(self._key + _VALUE + _sized(array))

    def _of_message(self, value: AttributeValue) -> bytes:
        return fields({self.name: value})


def fields(attributes: Mapping[str, AttributeValue]) -> bytes:
    """As fields of Span, by protobuf."""
    return trace_pb2.Span(attributes=key_values(attributes)).SerializeToString()


def varint(number: int) -> bytes:
    """As protobuf writes a length."""
    if number < _MORE:
        return _BYTES[number]
    if number < _MORE * _MORE:
        return _BYTES[number % _MORE | _MORE] + _BYTES[number // _MORE]
    return _BYTES[number % _MORE | _MORE] + varint(number // _MORE)


def _sized(message: bytes) -> bytes:
    return varint(len(message)) + message


def key_values(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
    """As messages."""
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: AttributeValue) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):  # before int, which it also is
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, Sequence):
        return AnyValue(array_value=ArrayValue(values=map(_value, value)))
    return AnyValue(string_value=str(value))
