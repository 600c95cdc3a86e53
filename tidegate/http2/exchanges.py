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
        self._is_client = endpoint.is_client
        self._limits = endpoint.limits
        self._tally = endpoint.tally
        self._accept = accept
        self._session = session
        self._streams = streams
        self._outbound = outbound
        # The latest sections that nothing was wrong with, and that have no content-length: what a peer says again, a
        # decoder gives as the same object.
        self._good_request: Fields | None = None
        self._good_head: Fields | None = None
        self._good_trailers: Fields | None = None

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

    def let_go(self) -> None:
        """The socket is gone: forget who takes requests. It knows the connection."""
        self._accept = _nobody

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
        # A server resets what we have opened, as often as we give it reason to, be it for a client of ours.
        # A client that resets a stream which we have answered, or begun to answer, has paid for it with a request that
        # was served. One that leaves takes thousands of these with it, and others may stay behind the same proxy.
        if not self._is_client and (stream is None or (stream.can_send and not stream.has_answered)):
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
        content_bytes: int | None = None
        if fields is not self._good_request:
            violation = _BAD_CHARACTERS if section.has_bad_characters else request_violation(fields)
            if violation is not None:
                raise Http2StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, violation)
            content_bytes = _content_bytes(stream_id, fields)
            if content_bytes is None:
                self._good_request = fields
            elif end_stream and content_bytes:
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
        if stream.has_head:
            self._check_trailers(stream, section)
        elif fields is self._good_head:
            stream.expect_content(None)
        elif not self._take_head(stream, section):
            return
        if end_stream:
            stream.advance(Signal.RECEIVE_END)
        stream.handler.on_headers(fields, end_stream=end_stream)

    def _check_trailers(self, stream: Stream, section: FieldSection) -> None:
        fields = section.fields
        violation: str | None = None
        if section.has_bad_characters:
            violation = _BAD_CHARACTERS
        elif not section.end_stream:
            violation = "a second head"
        elif fields is not self._good_trailers:
            violation = trailers_violation(fields)
        if violation is None and stream.content_bytes_left:
            violation = "content-length does not match"
        if violation is not None:
            raise Http2StreamError(stream.id, ErrorCode.PROTOCOL_ERROR, violation)
        self._good_trailers = fields

    def _take_head(self, stream: Stream, section: FieldSection) -> bool:
        """Whether it is the response's head, and not one of those before it that say nothing."""
        fields = section.fields
        violation = _BAD_CHARACTERS if section.has_bad_characters else response_violation(fields)
        if violation is not None:
            raise Http2StreamError(stream.id, ErrorCode.PROTOCOL_ERROR, violation)
        if not section.end_stream:
            if _is_interim(fields):
                self._session.spend(Abuse.EMPTY_FRAME_FLOOD)
                return False
            content_bytes = _content_bytes(stream.id, fields)
            if content_bytes is None:
                self._good_head = fields
            stream.expect_content(content_bytes)
        else:
            stream.expect_content(None)
        return True


def _nobody(stream: Stream, fields: Fields, end_stream: bool) -> StreamHandler:  # noqa: ARG001, FBT001 - Acceptor
    raise Http2StreamError(stream.id, ErrorCode.REFUSED_STREAM, "the connection is gone")


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
