"""gRPC's length-prefixed messages inside DATA (grpc's PROTOCOL-HTTP2): flag byte, four bytes of length, message."""

from __future__ import annotations

from typing import Final

PREFIX_BYTES: Final = 5


class MessageTooLargeError(Exception):
    """A message is longer than this side takes."""


class CompressedMessageError(Exception):
    """A message is compressed, which nobody offered to undo."""


def framed(message: bytes) -> bytes:
    """A message with its prefix, uncompressed."""
    return len(message).to_bytes(PREFIX_BYTES, "big") + message


def is_one_message(payload: bytes) -> bool:
    """Whether ``payload`` is exactly one uncompressed message: what a DATA frame mostly is."""
    size = len(payload) - PREFIX_BYTES
    return (
        size >= 0
        and not payload[0]
        and payload[1] << 24 | payload[2] << 16 | payload[3] << 8 | payload[4] == size  # unpacked where it is compiled
    )


class MessageReader:
    """Cuts a stream of bytes into messages."""

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        """No message may be longer than ``max_bytes``, which bounds what is held here."""
        self._max_bytes = max_bytes
        self._buffer: bytearray | None = None  # of messages that come in several parts, which most do not

    @property
    def has_partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._buffer is not None

    def feed(self, payload: bytes) -> list[bytes]:
        """The messages that ``payload`` completes, without prefixes.

        Raises ``MessageTooLargeError`` as soon as a prefix says so, ``CompressedMessageError``.
        """
        if self._buffer is None and is_one_message(payload) and len(payload) <= self._max_bytes + PREFIX_BYTES:
            return [payload[PREFIX_BYTES:]]
        messages: list[bytes] = []
        buffer = self._buffer or bytearray()
        buffer += payload
        at = 0
        while len(buffer) - at >= PREFIX_BYTES:
            if buffer[at]:
                raise CompressedMessageError
            end = at + PREFIX_BYTES + int.from_bytes(buffer[at + 1 : at + PREFIX_BYTES], "big")
            if end - at - PREFIX_BYTES > self._max_bytes:
                raise MessageTooLargeError(end - at - PREFIX_BYTES)
            if end > len(buffer):
                break
            messages.append(bytes(buffer[at + PREFIX_BYTES : end]))
            at = end
        del buffer[:at]
        self._buffer = buffer or None
        return messages
