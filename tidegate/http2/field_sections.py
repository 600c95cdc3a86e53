"""From HEADERS and CONTINUATION to a decoded field section (RFC 9113, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from hyperframe.frame import HeadersFrame

from tidegate.http2 import frames
from tidegate.http2.errors import ErrorCode, Http2ConnectionError
from tidegate.http2.field_decoder import FieldDecoder
from tidegate.http2.fields import Fields
from tidegate.http2.limits import Abuse, Limits


@dataclass(slots=True, init=False)
class FieldSection:
    """A whole field section and where it belongs."""

    stream_id: int
    fields: Fields
    end_stream: bool
    has_bad_characters: bool

    def __init__(self, stream_id: int, fields: Fields, end_stream: bool, has_bad_characters: bool) -> None:  # noqa: FBT001
        self.stream_id = stream_id
        self.fields = fields
        self.end_stream = end_stream
        self.has_bad_characters = has_bad_characters


@dataclass(slots=True)
class _Block:
    stream_id: int
    end_stream: bool
    fragments: list[bytes]
    size: int
    since_s: float


class FieldSections:
    """Puts the fragments of one field section at a time together; nothing may come between them."""

    __slots__ = ("_block", "_clock", "_decoder", "_limits")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds."""
        self._limits = limits
        self._clock = clock
        self._decoder = FieldDecoder(limits)
        self._block: _Block | None = None

    @property
    def is_open(self) -> bool:
        """Whether only a CONTINUATION may come next."""
        return self._block is not None

    def check_time(self) -> None:
        """Raise ``Http2ConnectionError`` when the open section takes too long."""
        if self._block is not None and self._clock() - self._block.since_s > self._limits.header_timeout_s:
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "field section too slow", abuse=Abuse.SLOW_HEADERS)

    def on_headers(self, flags: int, stream_id: int, payload: bytes) -> FieldSection | None:
        """Begin a section; returns it if it is whole."""
        if stream_id == 0:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            frame = cast("HeadersFrame", frames.parse(frames.HEADERS, flags, stream_id, payload))
            payload = frame.data
        end_stream = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            return self._decoded(stream_id, payload, end_stream=end_stream)
        self._block = _Block(stream_id, end_stream, [payload], len(payload), self._clock())
        return None

    def on_continuation(self, flags: int, stream_id: int, payload: bytes) -> FieldSection | None:
        """Go on with a section; returns it if it is whole."""
        block = self._block
        if block is None or stream_id != block.stream_id:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION out of place")
        block.fragments.append(payload)
        block.size += len(payload)
        limits = self._limits
        if len(block.fragments) > limits.max_continuations or block.size > limits.max_header_block_bytes:
            raise Http2ConnectionError(
                ErrorCode.ENHANCE_YOUR_CALM, "field section too long", abuse=Abuse.CONTINUATION_FLOOD
            )
        if not flags & frames.END_HEADERS:
            return None
        self._block = None
        return self._decoded(stream_id, b"".join(block.fragments), end_stream=block.end_stream)

    def _decoded(self, stream_id: int, block: bytes, *, end_stream: bool) -> FieldSection:
        decoded = self._decoder.decode(block)
        return FieldSection(stream_id, decoded.fields, end_stream, decoded.has_bad_characters)
