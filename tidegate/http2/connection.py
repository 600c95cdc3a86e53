"""One side of an HTTP/2 connection, without a socket: bytes in become calls of handlers, methods become bytes.

This file cuts reads into frames and handles those of the hot path, DATA and WINDOW_UPDATE. What field sections mean
stands in ``exchanges``, sending in ``streams`` and ``outbound``, the connection's own conversation in ``session``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tidegate.http2 import frames
from tidegate.http2.endpoint import Endpoint
from tidegate.http2.errors import ErrorCode, Http2ConnectionError, Http2StreamError
from tidegate.http2.exchanges import Acceptor, Exchanges
from tidegate.http2.field_sections import FieldSections
from tidegate.http2.flow import ReceiveWindow, WindowOverflowError
from tidegate.http2.frames import DATA, HEADER_BYTES, MAX_FRAME_BYTES, WINDOW_UPDATE
from tidegate.http2.limits import Abuse
from tidegate.http2.outbound import Outbound
from tidegate.http2.session import Session
from tidegate.http2.stream_table import StreamTable
from tidegate.http2.streams import EndCause, Signal, Stream, StreamEnd, StreamHandler

_WINDOW_UPDATE_BYTES: Final = 4


class Connection:
    """One connection. Its owner feeds ``receive``, writes ``take_output`` to the socket and calls ``tick``."""

    def __init__(self, endpoint: Endpoint, *, wake: Callable[[], None], accept: Acceptor) -> None:
        """``wake`` is called when output appears; ``accept`` gets the requests of a server."""
        self.outbound = Outbound(wake)
        self.streams = StreamTable(is_client=endpoint.is_client)
        self.session = Session(endpoint, self.outbound, self.streams)
        self._exchanges = Exchanges(
            endpoint, accept, session=self.session, streams=self.streams, outbound=self.outbound
        )
        self._sections = FieldSections(endpoint.limits, endpoint.clock)
        self._limits = endpoint.limits
        self._tally = endpoint.tally
        self._window = ReceiveWindow(endpoint.limits.connection_window_bytes)
        self._preface_pending = not endpoint.is_client
        self.was_abused = False  # and is over for it
        self._partial = b""
        self._received = 0  # flow-controlled bytes of this read
        self._open = self.streams.open
        self._is_settled = False  # SETTINGS have come, and no field section is open: any frame may come next
        self.session.start()

    def take_output(self) -> bytes:
        """Bytes for the socket."""
        return self.outbound.take_output()

    @property
    def is_finished(self) -> bool:
        """Whether the socket should be closed once the output is written."""
        return self.session.is_finished

    def open_stream(self, block: bytes, handler: StreamHandler, *, end_stream: bool = False) -> Stream:
        """Open a stream as client, with its encoded field section. Ask ``session.can_open`` first."""
        stream = self._exchanges.new_stream(self.streams.next_id())
        stream.handler = handler
        stream.send_headers(block, end_stream=end_stream)
        return stream

    def fail(self, fault: Http2ConnectionError) -> None:
        """End the connection for the peer's fault."""
        if fault.abuse is not None:
            self.was_abused = True
            self._tally[fault.abuse] += 1
        self.session.close(fault.code, str(fault))
        # Without an error there is no fault: nothing is heard of the peer, which is as lost as its socket could be.
        cause = EndCause.CONNECTION_LOST if fault.code is ErrorCode.NO_ERROR else EndCause.PEER_FAULT
        self._exchanges.end_all(StreamEnd(cause, fault.code))

    def lose(self) -> None:
        """The socket is gone: end all streams, and forget the owner."""
        self.session.abandon()
        self._exchanges.end_all(StreamEnd(EndCause.CONNECTION_LOST, ErrorCode.NO_ERROR))
        self._exchanges.let_go()
        self.outbound.let_go()

    def tick(self) -> None:
        """Look at the clock; about once a second."""
        try:
            self._sections.check_time()
            self.session.check_time()
        except Http2ConnectionError as fault:
            self.fail(fault)

    def receive(self, data: bytes) -> None:
        """Take what the socket gave. The peer's faults end streams or the connection; nothing is raised."""
        if self.session.is_finished:
            return
        self.session.heard()
        if self._partial:
            data = self._partial + data
        try:
            at = self._receive_preface(data) if self._preface_pending else 0
            if not self._preface_pending:
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
        while size - at >= HEADER_BYTES:
            # Byte by byte, since that is what a compiler makes most of.
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if length > MAX_FRAME_BYTES:
                raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, f"{length} bytes", abuse=Abuse.OVERSIZE_FRAME)
            kind = data[at + 3]
            flags = data[at + 4]
            stream_id = (data[at + 5] & 0x7F) << 24 | data[at + 6] << 16 | data[at + 7] << 8 | data[at + 8]
            start = at + HEADER_BYTES
            at = start + length
            if at > size:
                return start - HEADER_BYTES
            try:
                if kind == DATA and self._is_settled:
                    self._on_data(data[start:at], length, flags, stream_id)
                elif kind == WINDOW_UPDATE and self._is_settled:
                    self._on_window_update(data[start:at], stream_id)
                else:
                    self._on_frame(kind, flags, stream_id, data[start:at])
            except Http2StreamError as fault:
                self._exchanges.on_fault(fault)
        return at

    def _settle_window(self) -> None:
        """Account for the read in the connection's window: what streams hold is bounded by their own windows."""
        received, self._received = self._received, 0
        if not received:
            return
        window = self._window
        window.available -= received
        if window.available < 0:
            raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "connection window exceeded")
        window.used += received
        if window.used >= window.threshold:
            self.outbound.write(frames.window_update(0, window.give_back()))

    def _on_data(self, payload: bytes, length: int, flags: int, stream_id: int) -> None:
        self._received += length
        stream = self._open.get(stream_id)
        if stream is None or not stream.can_receive:
            self._on_stray_data(stream_id)
            return
        window = stream.receive_window
        window.available -= length
        if window.available < 0:
            raise Http2StreamError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "stream window exceeded")
        if flags or not length or stream.checks_content:
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

    def _on_window_update(self, payload: bytes, stream_id: int) -> None:
        if len(payload) != _WINDOW_UPDATE_BYTES:
            raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not of 4 bytes")
        self.session.count_window_update()
        increment = (payload[0] & 0x7F) << 24 | payload[1] << 16 | payload[2] << 8 | payload[3]
        stream = self._open.get(stream_id)
        try:
            if not increment:
                raise _error_of(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            if stream is not None:
                stream.widen(increment)
            elif not stream_id:
                self.outbound.widen(increment)
            elif self.streams.is_idle(stream_id):
                raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
        except WindowOverflowError as error:
            raise _error_of(stream_id, ErrorCode.FLOW_CONTROL_ERROR, str(error)) from error

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._sections.is_open and kind != frames.CONTINUATION:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a field section was interrupted")
        if not self.session.settings_received and (kind != frames.SETTINGS or flags & frames.ACK):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind in (frames.HEADERS, frames.CONTINUATION):
            on_fragment = self._sections.on_headers if kind == frames.HEADERS else self._sections.on_continuation
            section = on_fragment(flags, stream_id, payload)
            self._is_settled = section is not None
            if section is not None:
                self._exchanges.on_section(section)
        elif kind == frames.RST_STREAM:
            self._exchanges.on_rst_stream(flags, stream_id, payload)
        elif kind == frames.PUSH_PROMISE:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "push is off")
        else:
            self.session.on_frame(kind, flags, stream_id, payload)
            self._is_settled = True


def _error_of(stream_id: int, code: ErrorCode, message: str) -> Http2ConnectionError | Http2StreamError:
    """A fault on stream 0 is the connection's."""
    return Http2StreamError(stream_id, code, message) if stream_id else Http2ConnectionError(code, message)
