from __future__ import annotations

from collections.abc import Callable

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.fakes.http2_peer import REQUEST, ServerUnderTest, resets
from tidegate.http2.errors import ErrorCode, Http2StreamError
from tidegate.http2.exchanges import Acceptor
from tidegate.http2.fields import Fields
from tidegate.http2.frames import PREFACE
from tidegate.http2.streams import EndCause, Stream, StreamHandler

Script = Callable[[ServerUnderTest], list[Frame | bytes]]


def _raw(length: int, kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return length.to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def _without(name: str) -> list[tuple[str, str]]:
    return [(n, v) for n, v in REQUEST if n != name]


CONNECTION_ERRORS: dict[str, tuple[ErrorCode, Script]] = {
    "frame longer than announced": (ErrorCode.FRAME_SIZE_ERROR, lambda s: [_raw(16_385, 0, 0, 1)]),
    "SETTINGS of a length not divisible by six": (ErrorCode.FRAME_SIZE_ERROR, lambda s: [_raw(5, 4, 0, 0, bytes(5))]),
    "SETTINGS ack with a payload": (ErrorCode.FRAME_SIZE_ERROR, lambda s: [_raw(6, 4, 1, 0, bytes(6))]),
    "SETTINGS on a stream": (ErrorCode.PROTOCOL_ERROR, lambda s: [_raw(0, 4, 0, 1)]),
    "ENABLE_PUSH of 2": (ErrorCode.PROTOCOL_ERROR, lambda s: [SettingsFrame(settings={2: 2})]),
    "INITIAL_WINDOW_SIZE too large": (ErrorCode.FLOW_CONTROL_ERROR, lambda s: [SettingsFrame(settings={4: 2**31})]),
    "MAX_FRAME_SIZE too small": (ErrorCode.PROTOCOL_ERROR, lambda s: [SettingsFrame(settings={5: 16_383})]),
    "MAX_FRAME_SIZE too large": (ErrorCode.PROTOCOL_ERROR, lambda s: [SettingsFrame(settings={5: 2**24})]),
    "SETTINGS that overflow a stream's window": (
        ErrorCode.FLOW_CONTROL_ERROR,
        lambda s: [s.request(), WindowUpdateFrame(1, 2**31 - 1 - 65_535), SettingsFrame(settings={4: 65_536})],
    ),
    "PING of seven bytes": (ErrorCode.FRAME_SIZE_ERROR, lambda s: [_raw(7, 6, 0, 0, bytes(7))]),
    "PING on a stream": (ErrorCode.PROTOCOL_ERROR, lambda s: [_raw(8, 6, 0, 1, bytes(8))]),
    "GOAWAY too short": (ErrorCode.FRAME_SIZE_ERROR, lambda s: [_raw(7, 7, 0, 0, bytes(7))]),
    "GOAWAY on a stream": (ErrorCode.PROTOCOL_ERROR, lambda s: [_raw(8, 7, 0, 1, bytes(8))]),
    "RST_STREAM of three bytes": (ErrorCode.FRAME_SIZE_ERROR, lambda s: [s.request(), _raw(3, 3, 0, 1, bytes(3))]),
    "RST_STREAM on stream 0": (ErrorCode.PROTOCOL_ERROR, lambda s: [_raw(4, 3, 0, 0, bytes(4))]),
    "RST_STREAM on an idle stream": (ErrorCode.PROTOCOL_ERROR, lambda s: [RstStreamFrame(1)]),
    "WINDOW_UPDATE of three bytes": (ErrorCode.FRAME_SIZE_ERROR, lambda s: [_raw(3, 8, 0, 0, bytes(3))]),
    "WINDOW_UPDATE of 0 on the connection": (ErrorCode.PROTOCOL_ERROR, lambda s: [_raw(4, 8, 0, 0, bytes(4))]),
    "WINDOW_UPDATE that overflows the connection": (
        ErrorCode.FLOW_CONTROL_ERROR,
        lambda s: [WindowUpdateFrame(0, 2**31 - 1)],
    ),
    "WINDOW_UPDATE on an idle stream": (ErrorCode.PROTOCOL_ERROR, lambda s: [WindowUpdateFrame(1, 1)]),
    "DATA on stream 0": (ErrorCode.PROTOCOL_ERROR, lambda s: [_raw(1, 0, 0, 0, b"x")]),
    "DATA on an idle stream": (ErrorCode.PROTOCOL_ERROR, lambda s: [DataFrame(1, b"x")]),
    "DATA with padding as long as the frame": (
        ErrorCode.PROTOCOL_ERROR,
        lambda s: [s.request(), _raw(2, 0, 0x8, 1, b"\x02x")],
    ),
    "DATA padded and empty": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(), _raw(0, 0, 0x8, 1)]),
    "HEADERS on stream 0": (ErrorCode.PROTOCOL_ERROR, lambda s: [_raw(1, 1, 4, 0, b"\x83")]),
    "HEADERS on an even stream": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(2)]),
    "HEADERS on a stream below the last": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(5), s.request(3)]),
    "HEADERS with padding as long as the frame": (
        ErrorCode.PROTOCOL_ERROR,
        lambda s: [_raw(2, 1, 0xC, 1, b"\x02\x83")],
    ),
    "HEADERS too short for their priority": (ErrorCode.FRAME_SIZE_ERROR, lambda s: [_raw(4, 1, 0x24, 1, bytes(4))]),
    "a field section that HPACK cannot read": (ErrorCode.COMPRESSION_ERROR, lambda s: [_raw(1, 1, 4, 1, b"\xff")]),
    "an index beyond HPACK's table": (ErrorCode.COMPRESSION_ERROR, lambda s: [_raw(1, 1, 4, 1, b"\xfe")]),
    "CONTINUATION without HEADERS": (ErrorCode.PROTOCOL_ERROR, lambda s: [ContinuationFrame(1, b"")]),
    "CONTINUATION of another stream": (
        ErrorCode.PROTOCOL_ERROR,
        lambda s: [HeadersFrame(1, b"\x83"), ContinuationFrame(3, b"")],
    ),
    "DATA inside a field section": (ErrorCode.PROTOCOL_ERROR, lambda s: [HeadersFrame(1, b"\x83"), DataFrame(1, b"x")]),
    "PING inside a field section": (ErrorCode.PROTOCOL_ERROR, lambda s: [HeadersFrame(1, b"\x83"), PingFrame()]),
    "an unknown frame inside a field section": (
        ErrorCode.PROTOCOL_ERROR,
        lambda s: [HeadersFrame(1, b"\x83"), _raw(0, 0x42, 0, 1)],
    ),
    "PUSH_PROMISE from a client": (ErrorCode.PROTOCOL_ERROR, lambda s: [PushPromiseFrame(1, promised_stream_id=2)]),
    "PRIORITY of four bytes": (ErrorCode.FRAME_SIZE_ERROR, lambda s: [_raw(4, 2, 0, 1, bytes(4))]),
}


@pytest.mark.parametrize(("code", "script"), CONNECTION_ERRORS.values(), ids=CONNECTION_ERRORS)
def test_connection_error_sends_goaway_and_ends_every_stream(code: ErrorCode, script: Script) -> None:
    """A fault of the connection is answered by GOAWAY with RFC 9113's code, and streams are told."""
    server = ServerUnderTest()
    server.send(*script(server))
    goaway = server.goaway()
    assert goaway is not None
    assert code == goaway.error_code
    assert server.connection.is_finished
    assert all(handler.end is not None for handler in server.handlers.values())
    assert {} == server.connection.streams.open


def test_acceptor_that_raises_leaves_no_stream_behind() -> None:
    """The error comes out, and the end of the connection finds no stream that nobody handles."""
    server = ServerUnderTest(accept=_raising(RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory"):
        server.send(server.request())
    assert {} == server.connection.streams.open
    server.connection.lose()


def test_acceptor_may_refuse_a_stream_by_an_error() -> None:
    """The stream is reset with the error's code; the connection goes on."""
    server = ServerUnderTest(accept=_raising(Http2StreamError(1, ErrorCode.REFUSED_STREAM, "not now")))
    server.send(server.request())
    assert [(1, ErrorCode.REFUSED_STREAM)] == resets(server.replies())
    assert not server.connection.is_finished


def _raising(error: Exception) -> Acceptor:
    def accept(stream: Stream, fields: Fields, end_stream: bool) -> StreamHandler:  # noqa: FBT001 - Acceptor
        raise error

    return accept


STREAM_ERRORS: dict[str, tuple[ErrorCode, Script]] = {
    "WINDOW_UPDATE of 0": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(), _raw(4, 8, 0, 1, bytes(4))]),
    "WINDOW_UPDATE that overflows": (
        ErrorCode.FLOW_CONTROL_ERROR,
        lambda s: [s.request(), WindowUpdateFrame(1, 2**31 - 1)],
    ),
    "DATA after END_STREAM": (ErrorCode.STREAM_CLOSED, lambda s: [s.request(end_stream=True), DataFrame(1, b"x")]),
    "HEADERS after END_STREAM": (ErrorCode.STREAM_CLOSED, lambda s: [s.request(end_stream=True), s.request()]),
    "second HEADERS without END_STREAM": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(), s.request()]),
    "pseudo-header in trailers": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(), s.request(end_stream=True)]),
    "no :path": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=_without(":path"))]),
    "empty :path": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[*_without(":path"), (":path", "")])]),
    "no :method": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=_without(":method"))]),
    "no fields": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[])]),
    "no :scheme": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=_without(":scheme"))]),
    ":path twice": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[(":path", "/x"), *REQUEST])]),
    "unknown pseudo-header": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[(":status", "200"), *REQUEST])]),
    "pseudo-header after a field": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[("a", "b"), *REQUEST])]),
    "upper-case name": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[*REQUEST, ("Te", "trailers")])]),
    "empty name": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[*REQUEST, ("", "x")])]),
    "line feed in a value": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[*REQUEST, ("a", "x\ny")])]),
    "space before a value": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[*REQUEST, ("a", " x")])]),
    "connection field": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[*REQUEST, ("connection", "x")])]),
    "te other than trailers": (ErrorCode.PROTOCOL_ERROR, lambda s: [s.request(fields=[*REQUEST, ("te", "gzip")])]),
    "content-length that is exceeded": (
        ErrorCode.PROTOCOL_ERROR,
        lambda s: [s.request(fields=[*REQUEST, ("content-length", "1")]), DataFrame(1, b"xx")],
    ),
    "content-length that is not reached": (
        ErrorCode.PROTOCOL_ERROR,
        lambda s: [s.request(fields=[*REQUEST, ("content-length", "3")]), DataFrame(1, b"xx", flags=["END_STREAM"])],
    ),
    "content-length that is no number": (
        ErrorCode.PROTOCOL_ERROR,
        lambda s: [s.request(fields=[*REQUEST, ("content-length", "-1")])],
    ),
}


@pytest.mark.parametrize(("code", "script"), STREAM_ERRORS.values(), ids=STREAM_ERRORS)
def test_stream_error_resets_the_stream_and_spares_the_connection(code: ErrorCode, script: Script) -> None:
    """A fault of one stream is answered by RST_STREAM, and the next stream works."""
    server = ServerUnderTest()
    server.send(*script(server))
    assert [(1, code)] == resets(server.replies())
    server.send(server.request(3), DataFrame(3, b"still here", flags=["END_STREAM"]))
    assert b"still here" == server.handlers[3].received
    assert not server.connection.is_finished
    if 1 in server.handlers:
        assert server.handlers[1].end is not None
        assert EndCause.PEER_FAULT is server.handlers[1].end.cause


def test_stream_window_overrun_is_a_flow_control_error() -> None:
    """DATA beyond what the stream was granted resets it."""
    server = ServerUnderTest()
    server.holds = True
    server.send(server.request())
    for _ in range(4):
        server.send(DataFrame(1, bytes(16_384)))
    assert [(1, ErrorCode.FLOW_CONTROL_ERROR)] == resets(server.replies())


def test_data_after_our_reset_is_ignored() -> None:
    """The peer may not have heard of a reset yet."""
    server = ServerUnderTest()
    server.send(server.request())
    server.connection.streams.open[1].reset(ErrorCode.CANCEL)
    server.replies()
    server.send(DataFrame(1, b"late"), WindowUpdateFrame(1, 10), RstStreamFrame(1))
    assert [] == server.replies()


def test_data_on_a_stream_closed_long_ago_is_a_stream_error() -> None:
    """DATA on a stream that both sides have ended resets it once."""
    server = ServerUnderTest()
    server.send(server.request(end_stream=True))
    server.connection.streams.open[1].send_data(b"", end_stream=True)
    server.replies()
    server.send(DataFrame(1, b"late"))
    server.send(DataFrame(1, b"later"))
    assert [(1, ErrorCode.STREAM_CLOSED)] == resets(server.replies())


@pytest.mark.parametrize("wrong", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"\x16\x03\x01"])
def test_wrong_preface_ends_the_connection(wrong: bytes) -> None:
    """Somebody who does not speak HTTP/2 is told so and disconnected."""
    server = ServerUnderTest(handshake=False)
    server.send(wrong)
    goaway = server.goaway()
    assert goaway is not None
    assert ErrorCode.PROTOCOL_ERROR == goaway.error_code


@pytest.mark.parametrize(
    "first", [PingFrame(), SettingsFrame(flags=["ACK"]), GoAwayFrame()], ids=lambda f: f.__class__.__name__
)
def test_first_frame_must_be_settings(first: Frame) -> None:
    """The preface ends with a SETTINGS frame, which must not be an acknowledgement."""
    server = ServerUnderTest(handshake=False)
    server.send(PREFACE, first)
    goaway = server.goaway()
    assert goaway is not None
    assert ErrorCode.PROTOCOL_ERROR == goaway.error_code


def test_priority_and_unknown_frames_are_ignored() -> None:
    """What RFC 9113 deprecates or leaves open does no harm."""
    server = ServerUnderTest()
    server.send(PriorityFrame(7, depends_on=3, stream_weight=5), _raw(3, 0x42, 0xFF, 0, b"abc"), server.request(1))
    assert 1 in server.handlers
    assert [] == server.replies()
