"""Header fields: HPACK in both directions, and the rules that every field section obeys (RFC 9113, section 8).

Names and values are bytes. Nothing here knows gRPC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError

from tidegate.http2.errors import ErrorCode, Http2ConnectionError
from tidegate.http2.limits import Abuse, Limits

Field = tuple[bytes, bytes]
Fields = Sequence[Field]

# Told to the peer's decoder once per connection: our blocks never refer to a dynamic table, so that an encoded field is
# the same bytes on every connection and can be kept.
NO_DYNAMIC_TABLE = b"\x20"
_ENTRY_OVERHEAD_BYTES = 32  # RFC 7541, section 4.1
_ENCODER = Encoder()  # keeps no state, since every field is encoded as never indexed
# Fields whose values come again on call after call, and are no secrets: their encoded form is kept.
_RECURRING = frozenset(
    (
        b":authority",
        b":method",
        b":path",
        b":scheme",
        b":status",
        b"content-type",
        b"grpc-accept-encoding",
        b"grpc-encoding",
        b"grpc-status",
        b"te",
        b"user-agent",
    )
)
_LONGEST_KEPT_NAME = 64

_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|\A[ \t]|[ \t]\Z")
_CONNECTION_SPECIFIC = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))


def encode(fields: Iterable[Field]) -> bytes:
    """A header block, encoded without a dynamic table."""
    return b"".join([_encoded_again(*field) if field[0] in _RECURRING else _encoded(*field) for field in fields])


def _encoded(name: bytes, value: bytes) -> bytes:
    # "Sensitive" is hpack's word for never indexed. Huffman coding costs more CPU than the bytes it saves.
    return _ENCODER.add((name, value), sensitive=True, huffman=False)


_encoded_again = lru_cache(maxsize=1024)(_encoded)


def list_bytes(fields: Fields) -> int:
    """The size of a field section as SETTINGS_MAX_HEADER_LIST_SIZE counts it."""
    return sum(len(name) + len(value) + _ENTRY_OVERHEAD_BYTES for name, value in fields)


class FieldDecoder:
    """The receiving half of HPACK on one connection."""

    __slots__ = ("_decoder",)

    def __init__(self, limits: Limits) -> None:
        """Lists that decode to more than the limits' bound end the connection."""
        self._decoder = Decoder(max_header_list_size=limits.max_decoded_header_bytes)

    def decode(self, block: bytes) -> Fields:
        """The fields of ``block``. Raises ``Http2ConnectionError``: HPACK's state does not survive an error."""
        try:
            return list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise Http2ConnectionError(
                ErrorCode.ENHANCE_YOUR_CALM, "header list too large", abuse=Abuse.OVERSIZE_HEADER_LIST
            ) from error
        except HPACKError as error:
            raise Http2ConnectionError(ErrorCode.COMPRESSION_ERROR, str(error)) from error


def request_violation(fields: Fields) -> str | None:
    """What is malformed in a request's header section (RFC 9113, 8.3.1), or None."""
    pseudo = {name: value for name, value in fields if name.startswith(b":")}
    missing = [name for name in (b":method", b":scheme", b":path") if not pseudo.get(name)]
    if missing:
        return f"no {missing[0].decode()}"
    if sum(name.startswith(b":") for name, _ in fields) != len(pseudo):
        return "a pseudo-header field stands twice"
    return _field_violation(fields, _REQUEST_PSEUDO)


def response_violation(fields: Fields) -> str | None:
    """What is malformed in a response's header section (RFC 9113, 8.3.2), or None."""
    statuses = [value for name, value in fields if name == b":status"]
    if len(statuses) != 1 or not re.fullmatch(rb"[1-9]\d\d", statuses[0]):
        return "not exactly one valid :status"
    return _field_violation(fields, frozenset((b":status",)))


def trailers_violation(fields: Fields) -> str | None:
    """What is malformed in a trailer section, or None."""
    return _field_violation(fields, frozenset())


def _field_violation(fields: Fields, pseudo_allowed: frozenset[bytes]) -> str | None:
    regular_seen = False
    for name, value in fields:
        is_valid_name = _is_valid_name if len(name) <= _LONGEST_KEPT_NAME else _NAME.fullmatch
        if not is_valid_name(name) or _BAD_VALUE.search(value):
            return "a field name or value with forbidden characters"
        if name.startswith(b":"):
            if regular_seen or name not in pseudo_allowed:
                return "a pseudo-header field that is unknown or out of place"
        else:
            regular_seen = True
            if name in _CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
                return "a connection-specific field"
    return None


@lru_cache(maxsize=1024)
def _is_valid_name(name: bytes) -> bool:
    return _NAME.fullmatch(name) is not None
