from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_REQUEST: _ClassVar[ErrorReason]
    ERROR_REASON_CHAT_TEMPLATE_REJECTED: _ClassVar[ErrorReason]
    ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_KV_POOL_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_CONSTRAINT_REJECTED: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_ADMISSION_QUEUE_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_KV_EXHAUSTED: _ClassVar[ErrorReason]
    ERROR_REASON_NO_WORKER_AVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_DRAINING: _ClassVar[ErrorReason]
    ERROR_REASON_STREAM_INTERRUPTED: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_TOO_SHORT: _ClassVar[ErrorReason]
    ERROR_REASON_CONSTRAINT_VIOLATED: _ClassVar[ErrorReason]
    ERROR_REASON_ENGINE_ERROR: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_INVALID_REQUEST: ErrorReason
ERROR_REASON_CHAT_TEMPLATE_REJECTED: ErrorReason
ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: ErrorReason
ERROR_REASON_KV_POOL_EXCEEDED: ErrorReason
ERROR_REASON_CONSTRAINT_REJECTED: ErrorReason
ERROR_REASON_MODEL_NOT_FOUND: ErrorReason
ERROR_REASON_ADMISSION_QUEUE_FULL: ErrorReason
ERROR_REASON_KV_EXHAUSTED: ErrorReason
ERROR_REASON_NO_WORKER_AVAILABLE: ErrorReason
ERROR_REASON_DRAINING: ErrorReason
ERROR_REASON_STREAM_INTERRUPTED: ErrorReason
ERROR_REASON_DEADLINE_EXCEEDED: ErrorReason
ERROR_REASON_DEADLINE_TOO_SHORT: ErrorReason
ERROR_REASON_CONSTRAINT_VIOLATED: ErrorReason
ERROR_REASON_ENGINE_ERROR: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
