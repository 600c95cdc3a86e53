"""A model as the gateway serves it: what its workers said of it, and the means to render for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.options import KnownOptions
from gateway.prompt_histogram import PromptHistogram
from gateway.renderer import Renderer
from tidegate.inference.v1 import generation_pb2, model_pb2
from tidegate.worker.v1 import worker_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model. Limits are in tokens; ``sampling_defaults`` hold for what a request leaves unset."""

    name: str
    checkpoint_sha256: str
    tokenizer_sha256: str
    chat_template_sha256: str
    context_length: int
    max_output_tokens: int
    default_max_output_tokens: int
    vocabulary_size: int
    kv_pool_tokens: int
    block_size: int
    supports_seed: bool
    constraint_kinds: frozenset[model_pb2.ConstraintKind.ValueType]
    sampling_defaults: generation_pb2.SamplingOptions
    renderer: Renderer
    can_continue: bool = False  # whether its worker goes on with the output of another one
    calibration: PromptHistogram | None = None  # the prompts that its checkpoint was calibrated with
    known_options: KnownOptions = field(default_factory=KnownOptions, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        limits = (
            *(self.context_length, self.max_output_tokens, self.default_max_output_tokens),
            *(self.vocabulary_size, self.kv_pool_tokens, self.block_size),
        )
        if not self.name or min(limits) < 1:
            raise ValueError(f"a model needs a name and limits of at least 1: {self.name!r}, {limits}")

    @classmethod
    def from_handshake(cls, response: worker_service_pb2.GetModelResponse, renderer: Renderer) -> ServedModel:
        """Read what a worker says of its model. Raises ``ValueError`` when it cannot be served so."""
        model = response.model
        return cls(
            name=model.name,
            checkpoint_sha256=model.digests.checkpoint_sha256,
            tokenizer_sha256=model.digests.tokenizer_sha256,
            chat_template_sha256=model.digests.chat_template_sha256,
            context_length=model.limits.context_length,
            max_output_tokens=model.limits.max_output_tokens,
            default_max_output_tokens=model.limits.default_max_output_tokens,
            vocabulary_size=model.limits.vocabulary_size,
            kv_pool_tokens=model.limits.kv_pool_token_count,
            block_size=response.block_size,
            supports_seed=model.capabilities.seed,
            constraint_kinds=frozenset(model.capabilities.constraint_kinds),
            sampling_defaults=response.sampling_defaults,
            renderer=renderer,
            can_continue=response.supports_continuation,
            calibration=PromptHistogram.from_handshake(response),
        )
