"""One side of an HTTP/2 connection, without a socket: bytes in become calls of handlers, methods become bytes.

This file reads frames and applies the rules of RFC 9113 to them. Sending stands in ``streams`` and ``outbound``, the
connection's own conversation (SETTINGS, PING, GOAWAY, time-outs) in ``session``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from hyperframe.frame import RstStreamFrame, WindowUpdateFrame

from tidegate.http2 import frames
from tidegate.http2.endpoint import Endpoint
from tidegate.http2.errors import ErrorCode, Http2ConnectionError, Http2StreamError
from tidegate.http2.field_sections import FieldSection, FieldSections
from tidegate.http2.fields import Fields, request_violation, response_violation, trailers_violation
from tidegate.http2.flow import ReceiveWindow, WindowOverflowError
from tidegate.http2.limits import Abuse
from tidegate.http2.outbound import Outbound
from tidegate.http2.session import Session
from tidegate.http2.stream_table import StreamTable
from tidegate.http2.streams import EndCause, Signal, Stream, StreamEnd, StreamHandler

_MAX_LENGTH_DIGITS = 18  # no content is longer, and Python takes its time over very long numbers


# Called for every well-formed request. The stream may be answered or reset before it returns.
Acceptor = Callable[[Stream, Fields, bool], StreamHandler]


class Connection:
    """One connection. Its owner feeds ``receive``, writes ``take_output`` to the socket and calls ``tick``."""

    def __init__(self, endpoint: Endpoint, *, wake: Callable[[], None], accept: Acceptor) -> None:
        """``wake`` is called when output appears; ``accept`` gets the requests of a server."""
        self.outbound = Outbound(wake)
        self.streams = StreamTable(is_client=endpoint.is_client)
        self.session = Session(endpoint, self.outbound, self.streams)
        self._limits = endpoint.limits
        self._tally = endpoint.tally
        self._accept = accept
        self._sections = FieldSections(endpoint.limits, endpoint.clock)
        self._window = ReceiveWindow(endpoint.limits.connection_window_bytes)
        self._preface_pending = not endpoint.is_client
        self._partial = b""
        self._received = 0  # flow-controlled bytes of this read
        self.session.start()

    # Output and the ends of the connection.

    def take_output(self) -> bytes:
        """Bytes for the socket."""
        return self.outbound.take_output()

    @property
    def is_finished(self) -> bool:
        """Whether the socket should be closed once the output is written."""
        return self.session.is_finished

    def fail(self, fault: Http2ConnectionError) -> None:
        """End the connection for the peer's fault."""
        if fault.abuse is not None:
            self._tally[fault.abuse] += 1
        self.session.close(fault.code, str(fault))
        self._end_streams(StreamEnd(EndCause.PEER_FAULT, fault.code))

    def lose(self) -> None:
        """The socket is gone."""
        self.session.abandon()
        self._end_streams(StreamEnd(EndCause.CONNECTION_LOST, ErrorCode.NO_ERROR))

    def tick(self) -> None:
        """Look at the clock; about once a second."""
        try:
            self._sections.check_time()
            self.session.check_time()
        except Http2ConnectionError as fault:
            self.fail(fault)

    def open_stream(self, block: bytes, handler: StreamHandler, *, end_stream: bool = False) -> Stream:
        """Open a stream as client, with its encoded field section. Ask ``session.can_open`` first."""
        stream = self._new_stream(self.streams.next_id())
        stream.handler = handler
        stream.send_headers(block, end_stream=end_stream)
        return stream

    # Input.

    def receive(self, data: bytes) -> None:
        """Take what the socket gave. The peer's faults end streams or the connection; nothing is raised."""
        if self.session.is_finished:
            return
        self.session.heard()
        if self._partial:
            data = self._partial + data
        try:
            at = self._receive_preface(data) if self._preface_pending else 0
            at = self._receive_frames(data, at)
            self._partial = data[at:]
            self._settle_window()
        except Http2ConnectionError as fault:
            self._partial = b""
            self.fail(fault)

    def _receive_preface(self, data: bytes) -> int:
        got = data[: len(frames.PREFACE)]
        if not frames.PREFACE.startswith(got):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 connection preface")
        if len(got) < len(frames.PREFACE):
            return 0
        self._preface_pending = False
        return len(got)

    def _receive_frames(self, data: bytes, at: int) -> int:
        """Handle all complete frames from ``at`` on; returns where the first incomplete one begins."""
        size = len(data)
        if self._preface_pending:
            return at
        while size - at >= frames.HEADER_BYTES and not self.session.is_finished:
            high, low, kind, flags, stream_id = frames.unpack_header(data, at)
            length = high << 16 | low
            if length > frames.MAX_FRAME_BYTES:
                raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, f"{length} bytes", abuse=Abuse.OVERSIZE_FRAME)
            start = at + frames.HEADER_BYTES
            at = start + length
            if at > size:
                return start - frames.HEADER_BYTES
            try:
                if kind == 0 and not self._sections.is_open:
                    self._on_data(data[start:at], length, flags, stream_id & frames.MAX_STREAM_ID)
                else:
                    self._on_frame(kind, flags, stream_id & frames.MAX_STREAM_ID, data[start:at])
            except Http2StreamError as fault:
                self._reset_for(fault)
        return at

    def _settle_window(self) -> None:
        """Account for the read in the connection's window: what streams hold is bounded by their own windows."""
        received, self._received = self._received, 0
        if not received:
            return
        if not self._window.take(received):
            raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window exceeded")
        increment = self._window.give_back(received)
        if increment:
            self.outbound.write(frames.window_update(0, increment))

    def _on_data(self, payload: bytes, length: int, flags: int, stream_id: int) -> None:
        self._received += length
        stream = self.streams.open.get(stream_id)
        if stream is None or not stream.can_receive:
            self._on_stray_data(stream_id)
            return
        if not stream.take(length):
            raise Http2StreamError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "stream window exceeded")
        if flags or not length or stream.content_bytes_left is not None or not stream.has_head:
            self._on_unusual_data(stream, payload, flags)
        else:
            stream.handler.on_data(payload, end_stream=False)

    def _on_unusual_data(self, stream: Stream, payload: bytes, flags: int) -> None:
        """DATA that ends a stream, is padded or empty, or is counted against a content-length."""
        if not stream.has_head:
            raise Http2StreamError(stream.id, ErrorCode.PROTOCOL_ERROR, "DATA before a response's head")
        if flags & frames.PADDED:
            content = frames.unpadded(payload)
            stream.consume(len(payload) - len(content))
            payload = content
        end_stream = bool(flags & frames.END_STREAM)
        if not payload and not end_stream:
            self.session.spend(Abuse.EMPTY_FRAME_FLOOD)
        if stream.content_bytes_left is not None:
            stream.content_bytes_left -= len(payload)
            if stream.content_bytes_left < 0 or (end_stream and stream.content_bytes_left):
                raise Http2StreamError(stream.id, ErrorCode.PROTOCOL_ERROR, "content-length does not match")
        if end_stream:
            stream.advance(Signal.RECEIVE_END)
        if payload or end_stream:
            stream.handler.on_data(payload, end_stream=end_stream)

    def _on_stray_data(self, stream_id: int) -> None:
        if self.streams.is_idle(stream_id):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream")
        if not self.streams.was_reset(stream_id):
            raise Http2StreamError(stream_id, ErrorCode.STREAM_CLOSED, "DATA on a closed stream")

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._sections.is_open and kind != frames.CONTINUATION:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a field section was interrupted")
        if not self.session.settings_received and (kind != frames.SETTINGS or flags & frames.ACK):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind in (frames.HEADERS, frames.CONTINUATION):
            on_fragment = self._sections.on_headers if kind == frames.HEADERS else self._sections.on_continuation
            section = on_fragment(flags, stream_id, payload)
            if section is not None:
                self._on_section(section)
        elif kind == frames.WINDOW_UPDATE:
            self._on_window_update(flags, stream_id, payload)
        elif kind == frames.RST_STREAM:
            self._on_rst_stream(flags, stream_id, payload)
        elif kind == frames.PUSH_PROMISE:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "push is off")
        else:
            self.session.on_frame(kind, flags, stream_id, payload)

    def _on_section(self, section: FieldSection) -> None:
        stream = self.streams.open.get(section.stream_id)
        if stream is not None:
            self._on_more_fields(stream, section.fields, end_stream=section.end_stream)
        elif not self.streams.was_reset(section.stream_id):
            self._on_request(section.stream_id, section.fields, end_stream=section.end_stream)

    def _on_request(self, stream_id: int, fields: Fields, *, end_stream: bool) -> None:
        self.streams.accept(stream_id)
        violation = request_violation(fields)
        if violation is not None:
            raise Http2StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, violation)
        content_bytes = _content_bytes(stream_id, fields)
        if end_stream and content_bytes:
            raise Http2StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "content-length does not match")
        if not self.session.accepts_requests:
            self.session.refuse(stream_id)
            return
        if len(self.streams.open) >= self._limits.max_concurrent_streams:
            self.session.spend(Abuse.TOO_MANY_STREAMS)
            self._tally[Abuse.TOO_MANY_STREAMS] += 1
            self.session.refuse(stream_id)
            return
        stream = self._new_stream(stream_id)
        stream.has_head = True
        stream.content_bytes_left = content_bytes
        if end_stream:
            stream.advance(Signal.RECEIVE_END)
        stream.handler = self._accept(stream, fields, end_stream)

    def _on_more_fields(self, stream: Stream, fields: Fields, *, end_stream: bool) -> None:
        """A response's head, or trailers."""
        if not stream.can_receive:
            raise Http2StreamError(stream.id, ErrorCode.STREAM_CLOSED, "HEADERS on a half-closed stream")
        if stream.has_head:
            violation = trailers_violation(fields) if end_stream else "a second head"
        else:
            violation = response_violation(fields)
        if violation is not None:
            raise Http2StreamError(stream.id, ErrorCode.PROTOCOL_ERROR, violation)
        if not stream.has_head:
            if _is_interim(fields) and not end_stream:
                self.session.spend(Abuse.EMPTY_FRAME_FLOOD)
                return
            stream.has_head = True
            stream.content_bytes_left = None if end_stream else _content_bytes(stream.id, fields)
        elif stream.content_bytes_left:
            raise Http2StreamError(stream.id, ErrorCode.PROTOCOL_ERROR, "content-length does not match")
        if end_stream:
            stream.advance(Signal.RECEIVE_END)
        stream.handler.on_headers(fields, end_stream=end_stream)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        frame = cast("RstStreamFrame", frames.parse(frames.RST_STREAM, flags, stream_id, payload))
        if self.streams.is_idle(stream_id):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        self.session.spend(Abuse.RAPID_RESET)
        stream = self.streams.open.get(stream_id)
        if stream is not None:
            stream.discard()
            refused = frame.error_code == ErrorCode.REFUSED_STREAM
            cause = EndCause.REFUSED if refused else EndCause.RESET_BY_PEER
            stream.handler.on_end(StreamEnd(cause, frame.error_code))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.session.spend(Abuse.WINDOW_UPDATE_FLOOD)
        increment = int.from_bytes(payload, "big") & frames.MAX_WINDOW_BYTES
        if len(payload) != 4 or (increment == 0 and stream_id == 0):  # noqa: PLR2004 - RFC 9113, section 6.9
            frame = cast("WindowUpdateFrame", frames.parse(frames.WINDOW_UPDATE, flags, stream_id, payload))
            increment = frame.window_increment
        if increment == 0:
            raise Http2StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        try:
            if stream_id == 0:
                self.outbound.widen(increment)
                return
            stream = self.streams.open.get(stream_id)
            if stream is not None:
                stream.widen(increment)
                self.outbound.pump()
            elif self.streams.is_idle(stream_id):
                raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
        except WindowOverflowError as error:
            if stream_id == 0:
                raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, str(error)) from error
            raise Http2StreamError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, str(error)) from error

    # Streams.

    def _new_stream(self, stream_id: int) -> Stream:
        stream = Stream(
            stream_id,
            outbound=self.outbound,
            table=self.streams,
            send_window=self.session.peer.initial_window_bytes,
            receive_window=self._limits.stream_window_bytes,
        )
        self.streams.open[stream_id] = stream
        return stream

    def _reset_for(self, fault: Http2StreamError) -> None:
        self.session.spend(Abuse.RAPID_RESET)  # CVE-2025-8671: making us reset is as good as resetting
        if self.streams.was_reset(fault.stream_id):
            return
        stream = self.streams.open.get(fault.stream_id)
        if stream is None:
            self.outbound.write(frames.rst_stream(fault.stream_id, fault.code))
            self.streams.remember_reset(fault.stream_id)
            return
        stream.reset(fault.code)
        stream.handler.on_end(StreamEnd(EndCause.PEER_FAULT, fault.code))

    def _end_streams(self, end: StreamEnd) -> None:
        for stream in list(self.streams.open.values()):
            stream.discard()
            stream.handler.on_end(end)


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
