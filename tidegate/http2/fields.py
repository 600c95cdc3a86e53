"""Header fields: how they are sent, and the rules that every field section obeys (RFC 9113, section 8).

Names and values are bytes. Nothing here knows gRPC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tidegate.http2.field_literals import encode_by_hpack, encode_field

Field = tuple[bytes, bytes]
Fields = Sequence[Field]

# Told to the peer's decoder once per connection: our blocks never refer to a dynamic table, so that an encoded field is
# the same bytes on every connection and can be kept.
NO_DYNAMIC_TABLE = b"\x20"
_ENTRY_OVERHEAD_BYTES = 32  # RFC 7541, section 4.1
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
_COLON = ord(":")

_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD = b"\x00\r\n"
_BLANKS = (0x20, 0x09)
_CONNECTION_SPECIFIC = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_RESPONSE_PSEUDO = frozenset((b":status",))
_NO_PSEUDO: frozenset[bytes] = frozenset()
_STATUS = re.compile(rb"[1-9]\d\d")


@dataclass(slots=True, init=False)
class EncodedFields:
    """A header block, and its size as SETTINGS_MAX_HEADER_LIST_SIZE counts it."""

    block: bytes
    list_bytes: int

    def __init__(self, block: bytes, list_bytes: int) -> None:
        self.block = block
        self.list_bytes = list_bytes

    @classmethod
    def of(cls, fields: Fields) -> EncodedFields:
        """``fields``, encoded."""
        return EncodedFields(encode(fields), list_bytes(fields))


def encode(fields: Iterable[Field]) -> bytes:
    """A header block, encoded without a dynamic table."""
    return b"".join(
        [_encoded_again(name, value) if name in _RECURRING else encode_field(name, value) for name, value in fields]
    )


_encoded_again = lru_cache(maxsize=1024)(encode_by_hpack)


def list_bytes(fields: Fields) -> int:
    """The size of a field section as SETTINGS_MAX_HEADER_LIST_SIZE counts it."""
    size = _ENTRY_OVERHEAD_BYTES * len(fields)
    for name, value in fields:
        size += len(name) + len(value)
    return size


def has_bad_characters(fields: Fields) -> bool:
    """Whether a name or value holds what it must not (RFC 9113, section 8.2.1)."""
    for name, value in fields:
        is_valid_name = _is_valid_name if len(name) <= _LONGEST_KEPT_NAME else _NAME.fullmatch
        if not is_valid_name(name) or (value and not _is_valid_value(value)):
            return True
    return False


def _is_valid_value(value: bytes) -> bool:
    if value[0] in _BLANKS or value[-1] in _BLANKS:
        return False
    return len(value) == len(value.translate(None, _BAD))  # a regular expression takes six times as long


def request_violation(fields: Fields) -> str | None:
    """What is malformed in a request's header section (RFC 9113, 8.3.1), or None."""
    pseudo = [(name, value) for name, value in fields if name[0] == _COLON]
    named = dict(pseudo)
    if not (named.get(b":method") and named.get(b":scheme") and named.get(b":path")):
        return "no :method, :scheme or :path"
    if len(named) != len(pseudo):
        return "a pseudo-header field stands twice"
    return _field_violation(fields, _REQUEST_PSEUDO)


def response_violation(fields: Fields) -> str | None:
    """What is malformed in a response's header section (RFC 9113, 8.3.2), or None."""
    statuses = [value for name, value in fields if name == b":status"]
    if len(statuses) != 1 or (statuses[0] != b"200" and not _STATUS.fullmatch(statuses[0])):
        return "not exactly one valid :status"
    return _field_violation(fields, _RESPONSE_PSEUDO)


def trailers_violation(fields: Fields) -> str | None:
    """What is malformed in a trailer section, or None."""
    return _field_violation(fields, _NO_PSEUDO)


def _field_violation(fields: Fields, pseudo_allowed: frozenset[bytes]) -> str | None:
    regular_seen = False
    for name, value in fields:
        if name[0] == _COLON:
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
