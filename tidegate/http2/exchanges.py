"""What field sections and resets mean for streams: requests, responses, trailers (RFC 9113, section 8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from hyperframe.frame import RstStreamFrame

from tidegate.http2 import frames
from tidegate.http2.endpoint import Endpoint
from tidegate.http2.errors import ErrorCode, Http2ConnectionError, Http2StreamError
from tidegate.http2.field_sections import FieldSection
from tidegate.http2.fields import Fields, request_violation, response_violation, trailers_violation
from tidegate.http2.limits import Abuse
from tidegate.http2.outbound import Outbound
from tidegate.http2.session import Session
from tidegate.http2.stream_table import StreamTable
from tidegate.http2.streams import EndCause, Signal, Stream, StreamEnd, StreamHandler

_MAX_LENGTH_DIGITS = 18  # no content is longer, and Python takes its time over very long numbers

_BAD_CHARACTERS = "a field name or value with forbidden characters"

# Called for every well-formed request. The stream may be answered or reset before it returns.
Acceptor = Callable[[Stream, Fields, bool], StreamHandler]


class Exchanges:
    """Opens streams, tells their handlers of field sections, and ends them."""

    def __init__(
        self, endpoint: Endpoint, accept: Acceptor, *, session: Session, streams: StreamTable, outbound: Outbound
    ) -> None:
        """``accept`` gets the requests of a server."""
        self._limits = endpoint.limits
        self._tally = endpoint.tally
        self._accept = accept
        self._session = session
        self._streams = streams
        self._outbound = outbound

    def new_stream(self, stream_id: int) -> Stream:
        """A stream with the windows of this connection; its handler is still to be set."""
        stream = Stream(
            stream_id,
            outbound=self._outbound,
            table=self._streams,
            send_window=self._session.peer.initial_window_bytes,
            receive_window=self._limits.stream_window_bytes,
        )
        self._streams.open[stream_id] = stream
        return stream

    def end_all(self, end: StreamEnd) -> None:
        """The connection is over."""
        for stream in list(self._streams.open.values()):
            stream.discard()
            stream.handler.on_end(end)

    def on_section(self, section: FieldSection) -> None:
        """A field section is complete."""
        stream = self._streams.open.get(section.stream_id)
        if stream is not None:
            self._on_more_fields(stream, section)
        elif not self._streams.was_reset(section.stream_id):
            self._on_request(section)

    def on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        """The peer gives a stream up."""
        frame = cast("RstStreamFrame", frames.parse(frames.RST_STREAM, flags, stream_id, payload))
        if self._streams.is_idle(stream_id):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        stream = self._streams.open.get(stream_id)
        if stream is None or stream.can_send:  # one that we have answered cost the peer a whole request
            self._session.spend(Abuse.RAPID_RESET)
        if stream is not None:
            stream.discard()
            refused = frame.error_code == ErrorCode.REFUSED_STREAM
            cause = EndCause.REFUSED if refused else EndCause.RESET_BY_PEER
            stream.handler.on_end(StreamEnd(cause, frame.error_code))

    def on_fault(self, fault: Http2StreamError) -> None:
        """Reset a stream for the peer's fault."""
        self._session.spend(Abuse.RAPID_RESET)  # CVE-2025-8671: making us reset is as good as resetting
        if self._streams.was_reset(fault.stream_id):
            return
        stream = self._streams.open.get(fault.stream_id)
        if stream is None:
            self._outbound.write(frames.rst_stream(fault.stream_id, fault.code))
            self._streams.remember_reset(fault.stream_id)
            return
        stream.reset(fault.code)
        stream.handler.on_end(StreamEnd(EndCause.PEER_FAULT, fault.code))

    def _on_request(self, section: FieldSection) -> None:
        stream_id, fields, end_stream = section.stream_id, section.fields, section.end_stream
        self._streams.accept(stream_id)
        violation = _BAD_CHARACTERS if section.has_bad_characters else request_violation(fields)
        if violation is not None:
            raise Http2StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, violation)
        content_bytes = _content_bytes(stream_id, fields)
        if end_stream and content_bytes:
            raise Http2StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "content-length does not match")
        if not self._session.accepts_requests:
            self._session.refuse(stream_id)
            return
        if len(self._streams.open) >= self._limits.max_concurrent_streams:
            self._session.spend(Abuse.TOO_MANY_STREAMS)
            self._tally[Abuse.TOO_MANY_STREAMS] += 1
            self._session.refuse(stream_id)
            return
        stream = self.new_stream(stream_id)
        stream.expect_content(content_bytes)
        if end_stream:
            stream.advance(Signal.RECEIVE_END)
        try:
            stream.handler = self._accept(stream, fields, end_stream)
        except Exception:
            if not stream.is_closed:
                stream.discard()  # it has no handler to be told of what follows, be it the end of all streams
            raise

    def _on_more_fields(self, stream: Stream, section: FieldSection) -> None:
        """A response's head, or trailers."""
        fields, end_stream = section.fields, section.end_stream
        if not stream.can_receive:
            raise Http2StreamError(stream.id, ErrorCode.STREAM_CLOSED, "HEADERS on a half-closed stream")
        if section.has_bad_characters:
            violation: str | None = _BAD_CHARACTERS
        elif stream.has_head:
            violation = trailers_violation(fields) if end_stream else "a second head"
        else:
            violation = response_violation(fields)
        if violation is not None:
            raise Http2StreamError(stream.id, ErrorCode.PROTOCOL_ERROR, violation)
        if not stream.has_head:
            if _is_interim(fields) and not end_stream:
                self._session.spend(Abuse.EMPTY_FRAME_FLOOD)
                return
            stream.expect_content(None if end_stream else _content_bytes(stream.id, fields))
        elif stream.content_bytes_left:
            raise Http2StreamError(stream.id, ErrorCode.PROTOCOL_ERROR, "content-length does not match")
        if end_stream:
            stream.advance(Signal.RECEIVE_END)
        stream.handler.on_headers(fields, end_stream=end_stream)


def _is_interim(fields: Fields) -> bool:
    return any(name == b":status" and value.startswith(b"1") for name, value in fields)


def _content_bytes(stream_id: int, fields: Fields) -> int | None:
    """The announced content-length, or None."""
    for name, value in fields:
        if name == b"content-length":
            if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
                raise Http2StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "content-length is no number")
            return int(value)
    return None
