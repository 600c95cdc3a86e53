"""HTTP/2 error codes (RFC 9113, section 7) and the two ranges of an error: one stream, or the whole connection."""

from __future__ import annotations

from enum import IntEnum

from tidegate.http2.limits import Abuse


class ErrorCode(IntEnum):
    """Why a stream or a connection ends. A peer may send codes that are not listed here."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Http2ConnectionError(Exception):
    """The peer broke a rule of the connection, or a limit: GOAWAY and the end."""

    def __init__(self, code: ErrorCode, message: str, *, abuse: Abuse | None = None) -> None:
        """``abuse`` names the limit, where it was one."""
        super().__init__(message)
        self.code = code
        self.abuse = abuse


class Http2StreamError(Exception):
    """The peer broke a rule of one stream: RST_STREAM, and the connection goes on."""

    def __init__(self, stream_id: int, code: ErrorCode, message: str) -> None:
        """``stream_id`` need not be open."""
        super().__init__(message)
        self.stream_id = stream_id
        self.code = code
