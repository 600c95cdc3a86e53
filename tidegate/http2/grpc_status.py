"""How a gRPC call ends, and how HTTP/2's ways of ending map to it (grpc: PROTOCOL-HTTP2, http-grpc-status-mapping)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from grpc import StatusCode

from tidegate.http2.errors import ErrorCode
from tidegate.http2.fields import Field, Fields
from tidegate.http2.metadata import Metadata, decode_metadata, encode_metadata
from tidegate.http2.streams import EndCause, StreamEnd

_CODES: dict[int, StatusCode] = {code.value[0]: code for code in StatusCode}
_STATUS = b"grpc-status"
_MESSAGE = b"grpc-message"
_OK: Final = StatusCode.OK
# What may stand unescaped in grpc-message: printable ASCII but "%".
_PLAIN = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")

_OF_HTTP = {
    b"400": StatusCode.INTERNAL,
    b"401": StatusCode.UNAUTHENTICATED,
    b"403": StatusCode.PERMISSION_DENIED,
    b"404": StatusCode.UNIMPLEMENTED,
    b"429": StatusCode.UNAVAILABLE,
    b"502": StatusCode.UNAVAILABLE,
    b"503": StatusCode.UNAVAILABLE,
    b"504": StatusCode.UNAVAILABLE,
}
_OF_RESET: dict[int, StatusCode] = {
    ErrorCode.REFUSED_STREAM: StatusCode.UNAVAILABLE,
    ErrorCode.CANCEL: StatusCode.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}


@dataclass(slots=True, kw_only=True, init=False)
class Status:
    """The end of a call: code, message for people, and trailing metadata."""

    code: StatusCode
    message: str = ""
    metadata: Metadata = ()

    def __init__(self, *, code: StatusCode, message: str = "", metadata: Metadata = ()) -> None:
        self.code = code
        self.message = message
        self.metadata = metadata

    @property
    def is_ok(self) -> bool:
        """Whether the call succeeded."""
        return self.code is _OK

    @property
    def is_bare_ok(self) -> bool:
        """Whether its trailers are always the same."""
        return self.code is _OK and not self.message and not self.metadata

    def fields(self) -> list[Field]:
        """The trailers."""
        fields = [(_STATUS, b"%d" % self.code.value[0])]
        if self.message:
            fields.append((_MESSAGE, quote(self.message, safe=_PLAIN).encode()))
        fields += encode_metadata(self.metadata)
        return fields

    @classmethod
    def from_trailers(cls, fields: Fields, *, http_status: bytes = b"200") -> Status:
        """Read trailers, or a head that has to do for them."""
        named = dict(fields)
        number = named.get(_STATUS, b"")
        message = unquote(named[_MESSAGE].decode("ascii", "replace"), errors="replace") if _MESSAGE in named else ""
        metadata = decode_metadata(fields)
        if number.isdigit() and len(number) <= 3:  # noqa: PLR2004 - no code is longer
            return Status(code=_CODES.get(int(number), StatusCode.UNKNOWN), message=message, metadata=metadata)
        if http_status != b"200":
            code = _OF_HTTP.get(http_status, StatusCode.UNKNOWN)
            return Status(code=code, message=f"HTTP status {http_status.decode('ascii', 'replace')}", metadata=metadata)
        return Status(code=StatusCode.UNKNOWN, message="the call ended without a status", metadata=metadata)

    @classmethod
    def of_passed_on(cls, fields: Fields, *, http_status: bytes) -> Status:
        """As ``from_trailers``; but of a call that ended with OK, nobody asks for the metadata."""
        number = b""
        for name, value in fields:
            if name == _STATUS:
                number = value
        return Status(code=_OK) if number == b"0" else Status.from_trailers(fields, http_status=http_status)

    @classmethod
    def from_end(cls, end: StreamEnd) -> Status:
        """What an early end of the stream means to a caller."""
        if end.cause is EndCause.RESET_BY_PEER:
            code = _OF_RESET.get(end.code, StatusCode.INTERNAL)
            return Status(code=code, message=f"stream reset with HTTP/2 code {end.code}")
        if end.cause is EndCause.PEER_FAULT:
            return Status(code=StatusCode.INTERNAL, message=end.cause.value)
        return Status(code=StatusCode.UNAVAILABLE, message=end.cause.value)


class CallError(Exception):
    """A call ended with a status other than OK."""

    def __init__(self, status: Status) -> None:
        """``status`` is how it ended."""
        super().__init__(f"{status.code.name}: {status.message}")
        self.status = status
