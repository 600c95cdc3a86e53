"""gRPC metadata and the other request headers of grpc's PROTOCOL-HTTP2."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

from tidegate.http2.fields import Field, Fields

Metadata = tuple[tuple[str, str | bytes], ...]

CONTENT_TYPE = b"application/grpc"
IDENTITY = b"identity"
TIMEOUT = b"grpc-timeout"

# Part of the protocol, not of the application's metadata.
_RESERVED = frozenset(
    (
        b"content-type",
        b"grpc-accept-encoding",
        b"grpc-encoding",
        b"grpc-message",
        b"grpc-message-type",
        b"grpc-status",
        TIMEOUT,
        b"te",
    )
)
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_TIMEOUT = 99_999_999
_BINARY = b"-bin"


def parse_timeout(value: bytes) -> float | None:
    """Seconds of a ``grpc-timeout``; None when it is malformed."""
    match = _TIMEOUT.fullmatch(value)
    return int(match[1]) * _UNIT_S[match[2]] if match else None


def format_timeout(timeout_s: float) -> bytes:
    """A ``grpc-timeout`` of at most eight digits, as exact as they allow; the past becomes the least there is."""
    if timeout_s <= 0:
        return b"1n"
    for unit, per_s in ((b"n", 1e9), (b"u", 1e6), (b"m", 1e3), (b"S", 1.0)):
        if timeout_s * per_s <= _MAX_TIMEOUT:
            return b"%d%b" % (max(1, int(timeout_s * per_s)), unit)
    return b"%dS" % _MAX_TIMEOUT


def decode_metadata(fields: Fields) -> Metadata:
    """The application's metadata: names as text, values as text or, for names in -bin, as bytes."""
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name in _RESERVED or name.startswith(b":"):
            continue
        key = name.decode("ascii")
        if name.endswith(_BINARY):
            metadata += [(key, binary) for binary in _decode_binary(value)]
        else:
            metadata.append((key, value.decode("latin-1")))
    return tuple(metadata)


def encode_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> list[Field]:
    """Fields of metadata. Raises ``ValueError`` for text that is not printable ASCII, and for reserved names."""
    fields: list[Field] = []
    for key, value in metadata:
        name = key.lower().encode("ascii")
        if name in _RESERVED or name.startswith(b":"):
            raise ValueError(f"{key} is not for applications to set")
        if name.endswith(_BINARY):
            raw = value.encode() if isinstance(value, str) else value
            fields.append((name, base64.b64encode(raw).rstrip(b"=")))
            continue
        text = value.decode("ascii") if isinstance(value, bytes) else value
        if not (text.isascii() and text.isprintable()):
            raise ValueError(f"{key} is not printable ASCII")
        fields.append((name, text.strip().encode("ascii")))
    return fields


def _decode_binary(value: bytes) -> Iterable[bytes]:
    """Values of one -bin field, which may be several with commas between, with or without padding."""
    for part in value.split(b","):
        text = part.strip().rstrip(b"=")
        try:
            yield base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            continue  # not base64: no value, as grpc-go has it
