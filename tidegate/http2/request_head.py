"""A gRPC request's head: read by a server, written by a client (grpc's PROTOCOL-HTTP2, "Requests")."""

from __future__ import annotations

from collections.abc import Iterable
from sys import intern

from grpc import StatusCode

from tidegate.http2.fields import Field, Fields, list_bytes
from tidegate.http2.grpc_status import Status
from tidegate.http2.metadata import (
    CONTENT_TYPE,
    IDENTITY,
    TIMEOUT,
    Metadata,
    decode_metadata,
    encode_metadata,
    format_timeout,
    parse_timeout,
)

USER_AGENT = b"grpc-python-tidegate"


class RequestHead:
    """What a server needs to know before it looks at a message. Calls that begin alike may share one."""

    __slots__ = ("_metadata", "fields", "method", "timeout_s")

    def __init__(self, *, method: str, fields: Fields, timeout_s: float | None = None) -> None:
        self.method = method
        self.fields = fields
        self.timeout_s = timeout_s
        self._metadata: Metadata | None = None

    @property
    def metadata(self) -> Metadata:
        """The caller's metadata."""
        if self._metadata is None:
            self._metadata = decode_metadata(self.fields)
        return self._metadata


class HttpRefusalError(Exception):
    """The request is not gRPC; it gets an HTTP status and nothing else."""

    def __init__(self, http_status: bytes) -> None:
        """``http_status`` such as b"415"."""
        super().__init__(http_status.decode())
        self.http_status = http_status


class HeadRefusalError(Exception):
    """The request is gRPC, and cannot be served."""

    def __init__(self, status: Status, *, also: Fields = ()) -> None:
        """``status`` says why. ``also`` goes with it: fields of the protocol's own, which no status holds."""
        super().__init__(status.message)
        self.status = status
        self.also = also


def parse_head(fields: Fields, *, max_list_bytes: int) -> RequestHead:
    """Read the head of a request. Raises ``HttpRefusalError`` and ``HeadRefusalError``."""
    named = dict(fields)
    if named.get(b":method") != b"POST":
        raise HttpRefusalError(b"405")
    content_type = named.get(b"content-type", b"")
    if not content_type.startswith(CONTENT_TYPE) or content_type[len(CONTENT_TYPE) :][:1] not in (b"", b"+", b";"):
        raise HttpRefusalError(b"415")
    if list_bytes(fields) > max_list_bytes:
        message = f"request metadata is larger than {max_list_bytes} bytes"
        raise HeadRefusalError(Status(code=StatusCode.RESOURCE_EXHAUSTED, message=message))
    encoding = named.get(b"grpc-encoding", IDENTITY)
    if encoding != IDENTITY:
        message = f"grpc-encoding {encoding.decode('ascii', 'replace')} is not supported"
        accepted = ((b"grpc-accept-encoding", IDENTITY),)
        raise HeadRefusalError(Status(code=StatusCode.UNIMPLEMENTED, message=message), also=accepted)
    timeout_s = None
    if TIMEOUT in named:
        timeout_s = parse_timeout(named[TIMEOUT])
        if timeout_s is None:
            raise HeadRefusalError(Status(code=StatusCode.INTERNAL, message="malformed grpc-timeout"))
    # Interned, since it names the call's task as long as that lasts.
    return RequestHead(method=intern(named[b":path"].decode("latin-1")), fields=fields, timeout_s=timeout_s)


def request_fields(
    method: str,
    *,
    authority: str,
    is_tls: bool,
    metadata: Iterable[tuple[str, str | bytes]] = (),
    timeout_s: float | None = None,
) -> list[Field]:
    """The head of a request."""
    return [
        *method_fields(method, authority=authority, is_tls=is_tls),
        *encode_metadata(metadata),
        *(() if timeout_s is None else ((TIMEOUT, format_timeout(timeout_s)),)),
    ]


def method_fields(method: str, *, authority: str, is_tls: bool) -> list[Field]:
    """What all calls of a method begin with."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"https" if is_tls else b"http"),
        (b":path", method.encode("ascii")),
        (b":authority", authority.encode("ascii")),
        (b"te", b"trailers"),
        (b"content-type", CONTENT_TYPE),
        (b"user-agent", USER_AGENT),
    ]
