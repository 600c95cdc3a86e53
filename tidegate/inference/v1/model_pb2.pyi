from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConstraintKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSTRAINT_KIND_UNSPECIFIED: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_JSON_SCHEMA: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_REGEX: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_CHOICE: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_GRAMMAR: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_JSON_OBJECT: _ClassVar[ConstraintKind]
CONSTRAINT_KIND_UNSPECIFIED: ConstraintKind
CONSTRAINT_KIND_JSON_SCHEMA: ConstraintKind
CONSTRAINT_KIND_REGEX: ConstraintKind
CONSTRAINT_KIND_CHOICE: ConstraintKind
CONSTRAINT_KIND_GRAMMAR: ConstraintKind
CONSTRAINT_KIND_JSON_OBJECT: ConstraintKind

class Model(_message.Message):
    __slots__ = ("name", "limits", "digests", "capabilities")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    limits: ModelLimits
    digests: ModelDigests
    capabilities: ModelCapabilities
    def __init__(self, name: _Optional[str] = ..., limits: _Optional[_Union[ModelLimits, _Mapping]] = ..., digests: _Optional[_Union[ModelDigests, _Mapping]] = ..., capabilities: _Optional[_Union[ModelCapabilities, _Mapping]] = ...) -> None: ...

class ModelLimits(_message.Message):
    __slots__ = ("context_length", "max_output_tokens", "default_max_output_tokens", "vocabulary_size", "kv_pool_token_count")
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SIZE_FIELD_NUMBER: _ClassVar[int]
    KV_POOL_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    context_length: int
    max_output_tokens: int
    default_max_output_tokens: int
    vocabulary_size: int
    kv_pool_token_count: int
    def __init__(self, context_length: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., default_max_output_tokens: _Optional[int] = ..., vocabulary_size: _Optional[int] = ..., kv_pool_token_count: _Optional[int] = ...) -> None: ...

class ModelDigests(_message.Message):
    __slots__ = ("checkpoint_sha256", "tokenizer_sha256", "chat_template_sha256")
    CHECKPOINT_SHA256_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_SHA256_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATE_SHA256_FIELD_NUMBER: _ClassVar[int]
    checkpoint_sha256: str
    tokenizer_sha256: str
    chat_template_sha256: str
    def __init__(self, checkpoint_sha256: _Optional[str] = ..., tokenizer_sha256: _Optional[str] = ..., chat_template_sha256: _Optional[str] = ...) -> None: ...

class ModelCapabilities(_message.Message):
    __slots__ = ("chat", "seed", "constraint_kinds")
    CHAT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINT_KINDS_FIELD_NUMBER: _ClassVar[int]
    chat: bool
    seed: bool
    constraint_kinds: _containers.RepeatedScalarFieldContainer[ConstraintKind]
    def __init__(self, chat: _Optional[bool] = ..., seed: _Optional[bool] = ..., constraint_kinds: _Optional[_Iterable[_Union[ConstraintKind, str]]] = ...) -> None: ...
