"""The frames on the hot path, written and read without objects (RFC 9113, section 6); hyperframe has the others.

A relayed token costs one DATA frame in and one out, and now and then a WINDOW_UPDATE; everything else happens per
request or per connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hyperframe.exceptions import HyperframeError, InvalidDataError, InvalidPaddingError
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, SettingsFrame

from tidegate.http2.errors import ErrorCode, Http2ConnectionError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
# Both the default and the least that a peer must take: what we never exceed needs no splitting when it is relayed.
MAX_FRAME_BYTES: Final = 16_384
MAX_WINDOW_BYTES: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

# A token's frame is small: what stands before its stream's id, by length.
_SMALL_DATA: Final = tuple((size << 16).to_bytes(5, "big") for size in range(512))


def header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The nine bytes before a frame's payload."""
    return (length << 48 | kind << 40 | flags << 32 | stream_id).to_bytes(HEADER_BYTES, "big")


def data_header(stream_id: int, size: int) -> bytes:
    """What stands before ``size`` bytes of a stream that goes on."""
    if size < len(_SMALL_DATA):
        return _SMALL_DATA[size] + stream_id.to_bytes(4, "big")
    return header(DATA, 0, stream_id, size)


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return header(WINDOW_UPDATE, 0, stream_id, 4) + increment.to_bytes(4, "big")


def rst_stream(stream_id: int, code: int) -> bytes:
    """RST_STREAM."""
    return header(RST_STREAM, 0, stream_id, 4) + code.to_bytes(4, "big")


def header_block(stream_id: int, block: bytes, *, end_stream: bool) -> bytes:
    """HEADERS, followed by as many CONTINUATIONs as the block needs."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= MAX_FRAME_BYTES:
        return header(HEADERS, flags | END_HEADERS, stream_id, len(block)) + block
    pieces = [block[at : at + MAX_FRAME_BYTES] for at in range(0, len(block), MAX_FRAME_BYTES)]
    frames = [header(HEADERS, flags, stream_id, len(pieces[0])), pieces[0]]
    for piece in pieces[1:-1]:
        frames += (header(CONTINUATION, 0, stream_id, len(piece)), piece)
    frames += (header(CONTINUATION, END_HEADERS, stream_id, len(pieces[-1])), pieces[-1])
    return b"".join(frames)


def settings(values: Mapping[int, int]) -> bytes:
    """SETTINGS."""
    return SettingsFrame(settings=dict(values)).serialize()


def settings_ack() -> bytes:
    """The acknowledgement of the peer's SETTINGS."""
    return header(SETTINGS, ACK, 0, 0)


def ping(opaque: bytes, *, ack: bool = False) -> bytes:
    """PING, or the answer to one."""
    return PingFrame(opaque_data=opaque, flags=["ACK"] if ack else []).serialize()


def goaway(last_stream_id: int, code: int, message: str = "") -> bytes:
    """GOAWAY; ``message`` is for the peer's log."""
    return GoAwayFrame(last_stream_id=last_stream_id, error_code=code, additional_data=message.encode()).serialize()


def parse(kind: int, flags: int, stream_id: int, payload: bytes) -> Frame:
    """Read a frame by hyperframe. Raises ``Http2ConnectionError`` when its form is wrong (RFC 9113, section 4.2)."""
    try:
        frame, _ = Frame.parse_frame_header(memoryview(header(kind, flags, stream_id, len(payload))))
        frame.parse_body(memoryview(payload))
    except (InvalidDataError, InvalidPaddingError) as error:
        raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, str(error)) from error
    except HyperframeError as error:
        raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, str(error)) from error
    return frame


def unpadded(payload: bytes) -> bytes:
    """The content of a padded DATA frame (RFC 9113, section 6.1)."""
    if not payload or payload[0] >= len(payload):
        raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
