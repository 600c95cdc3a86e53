import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidegate.inference.v1 import chat_pb2 as _chat_pb2
from tidegate.inference.v1 import generation_pb2 as _generation_pb2
from tidegate.inference.v1 import inference_service_pb2 as _inference_service_pb2
from tidegate.inference.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TokenizerFile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOKENIZER_FILE_UNSPECIFIED: _ClassVar[TokenizerFile]
    TOKENIZER_FILE_TOKENIZER_JSON: _ClassVar[TokenizerFile]
    TOKENIZER_FILE_CHAT_TEMPLATE: _ClassVar[TokenizerFile]
    TOKENIZER_FILE_TOKENIZER_CONFIG: _ClassVar[TokenizerFile]

class WorkerErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_ERROR_REASON_UNSPECIFIED: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_AT_CAPACITY: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_CHECKPOINT_MISMATCH: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_INVALID_JOB: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_CONSTRAINT_REJECTED: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_CONSTRAINT_VIOLATED: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_NOT_SERVING: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_ENGINE_ERROR: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_ENGINE_DEAD: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_DEADLINE_EXCEEDED: _ClassVar[WorkerErrorReason]
    WORKER_ERROR_REASON_INTERNAL: _ClassVar[WorkerErrorReason]
TOKENIZER_FILE_UNSPECIFIED: TokenizerFile
TOKENIZER_FILE_TOKENIZER_JSON: TokenizerFile
TOKENIZER_FILE_CHAT_TEMPLATE: TokenizerFile
TOKENIZER_FILE_TOKENIZER_CONFIG: TokenizerFile
WORKER_ERROR_REASON_UNSPECIFIED: WorkerErrorReason
WORKER_ERROR_REASON_AT_CAPACITY: WorkerErrorReason
WORKER_ERROR_REASON_CHECKPOINT_MISMATCH: WorkerErrorReason
WORKER_ERROR_REASON_INVALID_JOB: WorkerErrorReason
WORKER_ERROR_REASON_CONSTRAINT_REJECTED: WorkerErrorReason
WORKER_ERROR_REASON_CONSTRAINT_VIOLATED: WorkerErrorReason
WORKER_ERROR_REASON_NOT_SERVING: WorkerErrorReason
WORKER_ERROR_REASON_ENGINE_ERROR: WorkerErrorReason
WORKER_ERROR_REASON_ENGINE_DEAD: WorkerErrorReason
WORKER_ERROR_REASON_DEADLINE_EXCEEDED: WorkerErrorReason
WORKER_ERROR_REASON_INTERNAL: WorkerErrorReason

class GenerateRequest(_message.Message):
    __slots__ = ("response_id", "checkpoint_sha256", "prompt_token_ids", "sampling", "constraint", "output", "criticality", "is_budget_clamped", "tenant")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SHA256_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CRITICALITY_FIELD_NUMBER: _ClassVar[int]
    IS_BUDGET_CLAMPED_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    checkpoint_sha256: str
    prompt_token_ids: _containers.RepeatedScalarFieldContainer[int]
    sampling: _generation_pb2.SamplingOptions
    constraint: _generation_pb2.OutputConstraint
    output: _generation_pb2.OutputOptions
    criticality: _generation_pb2.Criticality
    is_budget_clamped: bool
    tenant: str
    def __init__(self, response_id: _Optional[str] = ..., checkpoint_sha256: _Optional[str] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[_generation_pb2.SamplingOptions, _Mapping]] = ..., constraint: _Optional[_Union[_generation_pb2.OutputConstraint, _Mapping]] = ..., output: _Optional[_Union[_generation_pb2.OutputOptions, _Mapping]] = ..., criticality: _Optional[_Union[_generation_pb2.Criticality, str]] = ..., is_budget_clamped: _Optional[bool] = ..., tenant: _Optional[str] = ...) -> None: ...

class WatchLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchLoadResponse(_message.Message):
    __slots__ = ("load_report",)
    LOAD_REPORT_FIELD_NUMBER: _ClassVar[int]
    load_report: LoadReport
    def __init__(self, load_report: _Optional[_Union[LoadReport, _Mapping]] = ...) -> None: ...

class LoadReport(_message.Message):
    __slots__ = ("sample_number", "observed_time", "total_block_count", "free_block_count", "reclaimable_block_count", "reserved_block_count", "block_size", "running_request_count", "waiting_request_count", "pending_prefill_token_count", "prefill_tokens_per_second", "decode_tokens_per_second", "engine_step_age", "preemption_count", "is_draining")
    SAMPLE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_TIME_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    FREE_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECLAIMABLE_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESERVED_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAITING_REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    PENDING_PREFILL_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ENGINE_STEP_AGE_FIELD_NUMBER: _ClassVar[int]
    PREEMPTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    sample_number: int
    observed_time: _timestamp_pb2.Timestamp
    total_block_count: int
    free_block_count: int
    reclaimable_block_count: int
    reserved_block_count: int
    block_size: int
    running_request_count: int
    waiting_request_count: int
    pending_prefill_token_count: int
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    engine_step_age: _duration_pb2.Duration
    preemption_count: int
    is_draining: bool
    def __init__(self, sample_number: _Optional[int] = ..., observed_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., total_block_count: _Optional[int] = ..., free_block_count: _Optional[int] = ..., reclaimable_block_count: _Optional[int] = ..., reserved_block_count: _Optional[int] = ..., block_size: _Optional[int] = ..., running_request_count: _Optional[int] = ..., waiting_request_count: _Optional[int] = ..., pending_prefill_token_count: _Optional[int] = ..., prefill_tokens_per_second: _Optional[float] = ..., decode_tokens_per_second: _Optional[float] = ..., engine_step_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., preemption_count: _Optional[int] = ..., is_draining: _Optional[bool] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "canaries", "sampling_defaults", "block_size", "engine")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CANARIES_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    canaries: _containers.RepeatedCompositeFieldContainer[Canary]
    sampling_defaults: _generation_pb2.SamplingOptions
    block_size: int
    engine: str
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ..., canaries: _Optional[_Iterable[_Union[Canary, _Mapping]]] = ..., sampling_defaults: _Optional[_Union[_generation_pb2.SamplingOptions, _Mapping]] = ..., block_size: _Optional[int] = ..., engine: _Optional[str] = ...) -> None: ...

class Canary(_message.Message):
    __slots__ = ("name", "chat", "rendered_prompt", "token_ids")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    RENDERED_PROMPT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    chat: _chat_pb2.ChatPrompt
    rendered_prompt: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., chat: _Optional[_Union[_chat_pb2.ChatPrompt, _Mapping]] = ..., rendered_prompt: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class GetTokenizerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTokenizerResponse(_message.Message):
    __slots__ = ("file", "data")
    FILE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    file: TokenizerFile
    data: bytes
    def __init__(self, file: _Optional[_Union[TokenizerFile, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("grace_duration",)
    GRACE_DURATION_FIELD_NUMBER: _ClassVar[int]
    grace_duration: _duration_pb2.Duration
    def __init__(self, grace_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("running_request_count",)
    RUNNING_REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    running_request_count: int
    def __init__(self, running_request_count: _Optional[int] = ...) -> None: ...
