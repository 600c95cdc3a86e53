"""The seam between the gRPC service and an engine, and the value types that cross it.

An engine owns one model and one paged KV cache. Engines: ``vllm`` (worker/vllm_engine.py) and ``sim``
(worker/sim_engine.py). Nothing here knows grpc, vLLM or the protos' message classes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class FinishReason(Enum):
    """Why the engine ended a generation; the service turns LENGTH into BUDGET for a clamped job."""

    STOP = "stop"
    LENGTH = "length"
    REPETITION = "repetition"


class ConstraintKind(Enum):
    """The kinds of output constraint (``tidegate.inference.v1.OutputConstraint``)."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"
    JSON_OBJECT = "json_object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """An output constraint. ``text`` is the schema, expression or grammar; ``choices`` is for CHOICE alone."""

    kind: ConstraintKind
    text: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Resolved sampling options: every field has a value, as ``tidegate.inference.v1.SamplingOptions`` defines it."""

    max_output_tokens: int
    min_output_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """The part of an output that the client has already, from another worker.

    ``text_bytes`` is how much of the tokens' text it has, in UTF-8: what was held back there is still to be sent.
    """

    token_ids: tuple[int, ...]
    text_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationJob:
    """One generation, validated. ``job_id`` is unique in the process and made by the worker, never by a caller.

    With ``continued`` the engine goes on behind those tokens, which count as output: for the limits in ``sampling``,
    for penalties and for the constraint.
    """

    job_id: str
    prompt_token_ids: Sequence[int]
    sampling: Sampling
    constraint: Constraint | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    continued: Continued | None = None

    @property
    def continued_tokens(self) -> int:
        """How many output tokens the client has already."""
        return 0 if self.continued is None else len(self.continued.token_ids)

    @property
    def computed_token_ids(self) -> Sequence[int]:
        """What the engine has to compute before it can go on: the prompt, and the output that was continued."""
        return self.prompt_token_ids if self.continued is None else [*self.prompt_token_ids, *self.continued.token_ids]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token's log probability (natural) and its likeliest alternatives as (id, text, log probability)."""

    token_id: int
    token: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFinish:
    """The end of a generation. Durations in seconds, by the engine's own clock."""

    reason: FinishReason
    stop_string: str | None = None
    stop_token_id: int | None = None
    cached_prompt_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(slots=True, kw_only=True)  # not frozen: that makes one cost thrice as much, and every token is one
class EngineOutput:
    """One or more new tokens; the last output of a generation carries ``finish`` and may hold no token.

    The first output of a continued generation carries ``continued_text``, the text that the client has already.
    """

    token_ids: Sequence[int] = ()
    text: str = ""
    logprobs: Sequence[TokenLogprob] = ()
    prompt_logprobs: Sequence[TokenLogprob] = ()
    cached_prompt_tokens: int = 0  # the same in every output of a generation
    finish: EngineFinish | None = None
    continued_text: str = ""

    def merged(self, later: EngineOutput) -> EngineOutput:
        """This output and the next one of the same generation as one."""
        return EngineOutput(
            token_ids=[*self.token_ids, *later.token_ids],
            text=self.text + later.text,
            logprobs=[*self.logprobs, *later.logprobs],
            prompt_logprobs=[*self.prompt_logprobs, *later.prompt_logprobs],
            cached_prompt_tokens=later.cached_prompt_tokens,
            finish=later.finish,
            continued_text=self.continued_text + later.continued_text,
        )


# Ends when somebody who lags has caught up.
Wait = Callable[[], Awaitable[None]]
# Takes one output. Returned is None, or the wait that has to end before it takes another.
TakeOutput = Callable[[EngineOutput], Wait | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What is fixed once the engine has started. ``kv_pool_tokens`` is what one request can hold at most."""

    name: str  # such as "vllm 0.32.0"
    block_size: int
    total_blocks: int
    kv_pool_tokens: int
    context_length: int
    vocabulary_size: int
    max_running_requests: int
    max_batched_tokens: int  # in one step
    supports_seed: bool
    constraint_kinds: tuple[ConstraintKind, ...]
    supports_continuation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """The engine's own view of its load after its latest step. ``step_count`` grows with every step."""

    free_blocks: int
    reclaimable_blocks: int
    running_requests: int
    waiting_requests: int
    preemptions: int
    step_count: int
    last_step_at: float  # the worker's monotonic clock, seconds
    prompt_tokens_computed: int  # since the start
    output_tokens_generated: int  # since the start


class EngineError(Exception):
    """The engine failed on one request; others go on."""


class EngineDeadError(Exception):
    """The engine is gone; no request can be served by this process any more."""


class Engine(Protocol):
    """One model and its KV cache."""

    async def start(self) -> EngineFacts:
        """Load the model and allocate the whole KV cache. Raises ``EngineDeadError`` when that fails."""

    async def generate(self, job: GenerationJob, take: TakeOutput) -> None:
        """Run the job to its end, giving ``take`` each output as soon as it is there, from inside the engine's step.

        Outputs merge until ``take`` is ready for the next one. Cancelling aborts the job and frees its blocks. Raises
        ``EngineError``, ``EngineDeadError``, and what ``take`` raises.
        """

    def load(self) -> EngineLoad:
        """The load after the latest step."""

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the event loop after every engine step. One callback, the latest."""

    async def stop(self) -> None:
        """Abort what runs and release the model. May be called more than once."""
