"""SETTINGS: what we announce, and what the peer's mean once they have been checked (RFC 9113, section 6.5)."""

from __future__ import annotations

from collections.abc import Mapping

from hyperframe.frame import SettingsFrame

from tidegate.http2.errors import ErrorCode, Http2ConnectionError
from tidegate.http2.frames import MAX_FRAME_BYTES, MAX_WINDOW_BYTES
from tidegate.http2.limits import DEFAULT_WINDOW_BYTES, Limits

_MAX_MAX_FRAME_BYTES = 2**24 - 1


def announced(limits: Limits, *, is_client: bool) -> dict[int, int]:
    """Our SETTINGS. MAX_FRAME_SIZE stays at its default, so that every frame we get may be sent on to any peer."""
    values = {
        SettingsFrame.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
        SettingsFrame.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
    }
    if is_client:
        return {SettingsFrame.ENABLE_PUSH: 0, **values}
    return {SettingsFrame.MAX_CONCURRENT_STREAMS: limits.max_concurrent_streams, **values}


class PeerSettings:
    """What the peer has announced, starting from RFC 9113's defaults."""

    __slots__ = ("initial_window_bytes", "max_concurrent_streams", "max_header_list_bytes")

    def __init__(self) -> None:
        """Before the first SETTINGS frame; no value given means no limit."""
        self.initial_window_bytes = DEFAULT_WINDOW_BYTES
        self.max_concurrent_streams: int | None = None
        self.max_header_list_bytes: int | None = None

    def update(self, values: Mapping[int, int], *, from_server: bool) -> int:
        """Take over the peer's values; returns by how much the windows of all streams widen.

        Unknown settings are ignored. HEADER_TABLE_SIZE says nothing to us: our encoder uses no dynamic table.
        Raises ``Http2ConnectionError`` for values out of range.
        """
        push = values.get(SettingsFrame.ENABLE_PUSH, 0)
        if push not in (0, 1) or (push and from_server):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH out of range")
        frame_bytes = values.get(SettingsFrame.MAX_FRAME_SIZE, MAX_FRAME_BYTES)
        if not MAX_FRAME_BYTES <= frame_bytes <= _MAX_MAX_FRAME_BYTES:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE out of range")
        window_bytes = values.get(SettingsFrame.INITIAL_WINDOW_SIZE, self.initial_window_bytes)
        if window_bytes > MAX_WINDOW_BYTES:
            raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE out of range")
        self.max_concurrent_streams = values.get(SettingsFrame.MAX_CONCURRENT_STREAMS, self.max_concurrent_streams)
        self.max_header_list_bytes = values.get(SettingsFrame.MAX_HEADER_LIST_SIZE, self.max_header_list_bytes)
        widening = window_bytes - self.initial_window_bytes
        self.initial_window_bytes = window_bytes
        return widening
