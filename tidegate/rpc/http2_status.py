"""Errors as the HTTP/2 edge sends and receives them: google.rpc.Status in trailers, as grpc_status has it."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from tidegate.http2.grpc_status import Status
from tidegate.rpc.status import RpcError

_DETAILS = "grpc-status-details-bin"


def to_status(error: RpcError) -> Status:
    """The end of a call with ``error``: its details and its retry pushback included."""
    details = error.to_proto().SerializeToString()
    return Status(code=error.code, message=error.message, metadata=((_DETAILS, details), *error.trailers))


def from_status(status: Status) -> RpcError:
    """Read how a call failed. An error without details, such as one of a proxy, has an empty reason."""
    details = dict(status.metadata).get(_DETAILS)
    if isinstance(details, bytes):
        try:
            proto = status_pb2.Status.FromString(details)
        except DecodeError:
            proto = status_pb2.Status()
        if proto.code == status.code.value[0] and proto.message == status.message:
            return RpcError.from_proto(proto, code=status.code)
    return RpcError(code=status.code, reason="", domain="", message=status.message)
