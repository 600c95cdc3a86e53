"""Spans as OTLP has them. Pure.

Each one is written from pieces, since serialised fields laid end to end are a message, and most pieces are the same for
all spans of a form: a twentieth of what messages cost that are built field by field.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource

from tidegate import __version__
from tidegate.telemetry.conventions import SCHEMA_URL
from tidegate.telemetry.otlp_attribute import fields, key_values, varint
from tidegate.telemetry.spans import Constant, Form, Span

_OtlpSpan = trace_pb2.Span

# Tags of fields, with the length of those whose length is known.
_TRACE_ID: Final = b"\x0a\x10"
_SPAN_ID: Final = b"\x12\x08"
_PARENT_ID: Final = b"\x22\x08"
_RESOURCE_SPANS: Final = b"\x0a"  # of ExportTraceServiceRequest, and of those within
_SCOPE_SPANS: Final = b"\x12"
_SPANS: Final = b"\x12"
# Beginning and end, with their tags.
_TIMES: Final = Struct("<1s Q 1s Q").pack
_START: Final = b"\x39"
_END: Final = b"\x41"
_HAS_IS_REMOTE: Final = int(trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_IS_REMOTE: Final = int(trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
_LOCAL_PARENT: Final = _OtlpSpan(flags=_HAS_IS_REMOTE).SerializeToString()
_REMOTE_PARENT: Final = _OtlpSpan(flags=_HAS_IS_REMOTE | _IS_REMOTE).SerializeToString()


class ExportRequests:
    """Serialised ``ExportTraceServiceRequest``s of the process that ``resource`` describes."""

    def __init__(self, resource: Resource) -> None:
        of_process = trace_pb2.ResourceSpans(schema_url=resource.schema_url)
        of_process.resource.attributes.extend(key_values(resource.attributes))
        self._process = of_process.SerializeToString()
        scope = InstrumentationScope(name="tidegate", version=__version__)
        self._scope = trace_pb2.ScopeSpans(scope=scope, schema_url=SCHEMA_URL).SerializeToString()

    def of(self, written: Iterable[bytes]) -> bytes:
        """One that hands over spans as ``write`` has written them."""
        of_scope = self._scope + b"".join(written)
        of_process = self._process + _SCOPE_SPANS + varint(len(of_scope)) + of_scope
        return _RESOURCE_SPANS + varint(len(of_process)) + of_process


def write(span: Span) -> bytes:
    """A span that has ended, as a field of ScopeSpans."""
    pieces = [
        _TRACE_ID,
        span.trace_id,
        _SPAN_ID,
        span.span_id,
        _TIMES(_START, span.start_ns, _END, span.end_ns),
        _REMOTE_PARENT if span.is_parent_remote else _LOCAL_PARENT,
        span.form.written or _of_form(span.form),
    ]
    if span.parent_id:
        pieces.append(_PARENT_ID)
        pieces.append(span.parent_id)
    if span.told is not None:
        for told in span.told:
            if isinstance(told, Constant):
                pieces.append(told.written or _of_constant(told))
            else:
                values = told.values
                for place, attribute in enumerate(told.names.attributes):
                    pieces.append(attribute.write(values[place]))
    if span.state or span.has_failed or span.events:
        pieces.append(_seldom(span))
    message = b"".join(pieces)
    return _SPANS + varint(len(message)) + message


def _of_form(form: Form) -> bytes:
    form.written = _OtlpSpan(name=form.name, kind=form.kind).SerializeToString() + fields(form.attributes)
    return form.written


def _of_constant(constant: Constant) -> bytes:
    constant.written = fields(constant.attributes)
    return constant.written


def _seldom(span: Span) -> bytes:
    return _OtlpSpan(
        trace_state=span.state,
        status=trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR) if span.has_failed else None,
        events=[
            _OtlpSpan.Event(name=name, time_unix_nano=time_ns, attributes=key_values(attributes))
            for name, time_ns, attributes in span.events or ()
        ],
    ).SerializeToString()
