"""Spans as OTLP has them. Pure.

Each one is written from pieces, since serialised fields laid end to end are a message, and most pieces come again with
every request: a tenth of what messages cost that are built field by field. protobuf writes the pieces, but for lengths
and for what is as long as its length says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import AttributeValue

from tidegate import __version__
from tidegate.telemetry.conventions import GEN_AI_RESPONSE_ID, SCHEMA_URL
from tidegate.telemetry.spans import Span

_OtlpSpan = trace_pb2.Span

_LOCAL_PARENT = int(trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE_PARENT = _LOCAL_PARENT | int(trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)

# Tags of fields, with the length of those whose length is known.
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_START, _END, _FLAGS = b"\x39", b"\x41", b"\x85\x01"
_RESOURCE_SPANS, _SCOPE_SPANS, _SPANS = b"\x0a", b"\x12", b"\x12"  # of ExportTraceServiceRequest and those within
_MORE = 0x80  # of a varint: there are further bytes
# What every span has: two ids, two times, and flags.
_FIXED = Struct("<2s 16s 2s 8s 1s Q 1s Q 2s I").pack
_DOUBLE, _DOUBLE_BYTES = Struct("<d").pack, 8
# One of several: a value in a list, with its length, and the double in it.
_LISTED_DOUBLE = Struct("<3s d").pack
_LISTED, _LISTED_BYTES = b"\x0a\x09\x21", 11
# Their values are new with each request, and would only push others out of what is kept.
_UNIQUE = frozenset((GEN_AI_RESPONSE_ID,))
# Names and counts.
_KEPT = lru_cache(maxsize=4096, typed=True)  # 1 is no True


class ExportRequests:
    """Serialised ``ExportTraceServiceRequest``s of the process that ``resource`` describes."""

    def __init__(self, resource: Resource) -> None:
        of_process = trace_pb2.ResourceSpans(schema_url=resource.schema_url)
        of_process.resource.attributes.extend(_key_values(resource.attributes))
        self._process = of_process.SerializeToString()
        scope = InstrumentationScope(name="tidegate", version=__version__)
        self._scope = trace_pb2.ScopeSpans(scope=scope, schema_url=SCHEMA_URL).SerializeToString()

    def of(self, written: Iterable[bytes]) -> bytes:
        """One that hands over spans as ``write`` has written them."""
        of_scope = self._scope + b"".join(written)
        of_process = self._process + _SCOPE_SPANS + _varint(len(of_scope)) + of_scope
        return _RESOURCE_SPANS + _varint(len(of_process)) + of_process


def write(span: Span) -> bytes:
    """A span that has ended, as a field of ScopeSpans."""
    pieces = [
        _FIXED(
            *(_TRACE_ID, span.trace_id.to_bytes(16, "big"), _SPAN_ID, span.span_id.to_bytes(8, "big")),
            *(_START, span.start_ns, _END, span.end_ns),
            *(_FLAGS, _REMOTE_PARENT if span.is_parent_remote else _LOCAL_PARENT),
        ),
        _named(span.name, span.kind),
    ]
    if span.parent_id:
        pieces += (_PARENT_ID, span.parent_id.to_bytes(8, "big"))
    for key, value in span.attributes.items():
        if isinstance(value, float):
            pieces += (_double_of(key), _DOUBLE(value))
        elif isinstance(value, str) and key in _UNIQUE:
            text = value.encode()
            pieces += (_text_of(key, len(text)), text)
        elif isinstance(value, tuple) and value and isinstance(value[0], float):
            pieces.append(_doubles_of(key, len(value)))
            pieces += [_LISTED_DOUBLE(_LISTED, number) for number in value]
        else:
            pieces.append(_attribute(key, value))
    if span.state or span.has_failed or span.events:
        pieces.append(_seldom(span))
    message = b"".join(pieces)
    return _SPANS + _varint(len(message)) + message


@_KEPT
def _named(name: str, kind: trace_pb2.Span.SpanKind.ValueType) -> bytes:
    return _OtlpSpan(name=name, kind=kind).SerializeToString()


@_KEPT
def _attribute(key: str, value: AttributeValue) -> bytes:
    return _OtlpSpan(attributes=_key_values({key: value})).SerializeToString()


@_KEPT
def _double_of(key: str) -> bytes:
    """All of such an attribute but the number."""
    return _attribute(key, 1.0)[:-_DOUBLE_BYTES]


@_KEPT
def _doubles_of(key: str, count: int) -> bytes:
    """All of such an attribute but the numbers and what stands before each."""
    return _attribute(key, (1.0,) * count)[: -_LISTED_BYTES * count]


@_KEPT
def _text_of(key: str, size: int) -> bytes:
    """All of such an attribute but the text, of ``size`` bytes."""
    written = _attribute(key, "x" * size)
    return written[: len(written) - size]


def _seldom(span: Span) -> bytes:
    return _OtlpSpan(
        trace_state=span.state,
        status=trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR) if span.has_failed else None,
        events=[
            _OtlpSpan.Event(name=name, time_unix_nano=time_ns, attributes=_key_values(attributes))
            for name, time_ns, attributes in span.events or ()
        ],
    ).SerializeToString()


def _varint(number: int) -> bytes:
    """As protobuf writes a length."""
    written = bytearray()
    while number >= _MORE:
        written.append(number % _MORE | _MORE)
        number //= _MORE
    written.append(number)
    return bytes(written)


def _key_values(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
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
