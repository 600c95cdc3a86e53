"""Spans as OTLP has them. Pure.

Each one is written from pieces, since serialised fields laid end to end are a message, and most pieces come again with
every request: a tenth of what messages cost that are built field by field. protobuf writes the pieces, but for numbers
of fixed width, and reads the whole once more when it is put into a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import AttributeValue

from tidegate import __version__
from tidegate.telemetry.conventions import SCHEMA_URL
from tidegate.telemetry.spans import Span

_OtlpSpan = trace_pb2.Span

_LOCAL_PARENT = int(trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE_PARENT = _LOCAL_PARENT | int(trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)

# Tags of fields, with the length of those whose length is known.
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_START, _END, _FLAGS = b"\x39", b"\x41", b"\x85\x01"
_SPANS = b"\x12"  # of ScopeSpans
_MORE = 0x80  # of a varint: there are further bytes
# What every span has: two ids, two times, and flags.
_FIXED = Struct("<2s 16s 2s 8s 1s Q 1s Q 2s I").pack
_DOUBLE = Struct("<d").pack
# Names and counts; ids are new each time, and push out what was not used for long.
_KEPT = lru_cache(maxsize=4096, typed=True)  # 1 is no True


def export_request(resource: Resource, spans: Iterable[Span]) -> ExportTraceServiceRequest:
    """A request that hands over ``spans`` of the process that ``resource`` describes."""
    request = ExportTraceServiceRequest()
    of_process = request.resource_spans.add(schema_url=resource.schema_url)
    of_process.resource.attributes.extend(_key_values(resource.attributes))
    scope = of_process.scope_spans.add(schema_url=SCHEMA_URL)
    scope.scope.name, scope.scope.version = "tidegate", __version__
    scope.MergeFromString(b"".join(map(_written, spans)))
    return request


def _written(span: Span) -> bytes:
    """A field of ScopeSpans."""
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
        if type(value) is float:
            pieces += (_double_of(key), _DOUBLE(value))
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
    """All of such an attribute but its last eight bytes."""
    return _attribute(key, 1.0)[:-8]


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
