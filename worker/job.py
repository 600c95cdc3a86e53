"""From ``tidegate.worker.v1.GenerateRequest`` to ``GenerationJob``, with every bound checked that the engine relies on.

A gateway has checked all of this and more. The worker does not take its word for it: a value that the engine cannot
bear would end every stream of the process.
"""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.status import Violation
from tidegate.rpc.token_ids import unpacked
from tidegate.worker.v1 import worker_service_pb2
from worker.engine import Constraint, ConstraintKind, Continued, EngineFacts, GenerationJob, Sampling
from worker.errors import InvalidJobError

_MAX_LOGPROBS = 20
_MAX_STOP_STRINGS, _MAX_STOP_STRING_LENGTH = 16, 256
_MAX_STOP_TOKENS = 64
_MAX_BIASES, _MAX_BIAS = 300, 100.0

# Least and greatest value of each scalar option whose bounds are fixed.
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1_024),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.0, 2.0),
}
_ABOVE_LEAST = frozenset({"top_p", "repetition_penalty"})  # their least value itself is not allowed


def parse_job(
    request: worker_service_pb2.GenerateRequest,
    *,
    job_id: str,
    facts: EngineFacts,
    defaults: generation_pb2.SamplingOptions,
) -> GenerationJob:
    """The job that ``request`` asks for; options that it leaves unset take ``defaults``. Raises ``InvalidJobError``."""
    options = generation_pb2.SamplingOptions()
    options.CopyFrom(defaults)
    options.MergeFrom(request.sampling)
    if not request.sampling.HasField("min_output_tokens") and options.min_output_tokens > options.max_output_tokens:
        options.min_output_tokens = options.max_output_tokens  # a default gives way
    try:
        prompt = unpacked(request.prompt_token_ids)
    except ValueError as error:
        raise InvalidJobError([_violation("prompt_token_ids", str(error))]) from error
    violations = [
        *_prompt_violations(prompt, request, facts),
        *_budget_violations(request, options),
        *range_violations(options),
        *_seed_violations(options, facts),
        *_list_violations(options, facts),
        *_output_violations(request.output),
        *_continuation_violations(request, facts),
    ]
    constraint = _constraint(request.constraint)
    if constraint is not None and constraint.kind not in facts.constraint_kinds:
        violations.append(_violation("constraint", f"{facts.name} does not obey {constraint.kind.value}"))
    if violations:
        raise InvalidJobError(violations)
    output = request.output
    return GenerationJob(
        job_id=job_id,
        prompt_token_ids=prompt,
        sampling=_sampling(options),
        constraint=constraint,
        logprobs=output.logprobs if output.HasField("logprobs") else None,
        prompt_logprobs=output.prompt_logprobs if output.HasField("prompt_logprobs") else None,
        continued=_continued(request),
    )


def _violation(field: str, description: str) -> Violation:
    return Violation(field=field, description=description)


def _prompt_violations(
    prompt: list[int], request: worker_service_pb2.GenerateRequest, facts: EngineFacts
) -> Iterator[Violation]:
    if not prompt:
        yield _violation("prompt_token_ids", "is empty")
        return
    if max(prompt) >= facts.vocabulary_size:
        yield _violation("prompt_token_ids", f"ids go from 0 to {facts.vocabulary_size - 1}")
    tokens = len(prompt) + request.sampling.max_output_tokens
    if tokens > facts.context_length:
        yield _violation("prompt_token_ids", f"{tokens} tokens with the output exceed {facts.context_length}")
    if tokens > facts.kv_pool_tokens:
        yield _violation(
            "prompt_token_ids", f"{tokens} tokens with the output exceed the pool's {facts.kv_pool_tokens}"
        )


def _budget_violations(
    request: worker_service_pb2.GenerateRequest, options: generation_pb2.SamplingOptions
) -> Iterator[Violation]:
    if not request.sampling.HasField("max_output_tokens") or request.sampling.max_output_tokens < 1:
        yield _violation("sampling.max_output_tokens", "is required, at least 1")
    elif not 0 <= options.min_output_tokens <= options.max_output_tokens:
        yield _violation("sampling.min_output_tokens", f"must be from 0 to {options.max_output_tokens}")


def range_violations(options: generation_pb2.SamplingOptions) -> Iterator[Violation]:
    """What in ``options`` is outside its fixed bounds, whoever asks for it and of whichever engine."""
    for name, (least, greatest) in _RANGES.items():
        value = getattr(options, name)
        is_open = name in _ABOVE_LEAST
        # Written so that NaN is outside.
        is_inside = least <= value <= greatest and not (is_open and value == least)
        if options.HasField(name) and not is_inside:  # type: ignore[arg-type]
            yield _violation(f"sampling.{name}", f"must be {'above' if is_open else 'from'} {least:g} to {greatest:g}")


def _seed_violations(options: generation_pb2.SamplingOptions, facts: EngineFacts) -> Iterator[Violation]:
    if options.HasField("seed") and not facts.supports_seed:
        yield _violation("sampling.seed", f"{facts.name} does not obey it")


def _list_violations(options: generation_pb2.SamplingOptions, facts: EngineFacts) -> Iterator[Violation]:
    if len(options.stop_strings) > _MAX_STOP_STRINGS:
        yield _violation("sampling.stop_strings", f"are more than {_MAX_STOP_STRINGS}")
    if not all(1 <= len(text) <= _MAX_STOP_STRING_LENGTH for text in options.stop_strings):
        yield _violation("sampling.stop_strings", f"have 1 to {_MAX_STOP_STRING_LENGTH} characters each")
    if len(options.stop_token_ids) > _MAX_STOP_TOKENS:
        yield _violation("sampling.stop_token_ids", f"are more than {_MAX_STOP_TOKENS}")
    if len(options.logit_bias) > _MAX_BIASES:
        yield _violation("sampling.logit_bias", f"has more than {_MAX_BIASES} entries")
    if not all(-_MAX_BIAS <= bias <= _MAX_BIAS for bias in options.logit_bias.values()):
        yield _violation("sampling.logit_bias", f"values go from {-_MAX_BIAS:g} to {_MAX_BIAS:g}")
    for name in ("stop_token_ids", "logit_bias"):
        if not all(0 <= token_id < facts.vocabulary_size for token_id in getattr(options, name)):
            yield _violation(f"sampling.{name}", f"ids go from 0 to {facts.vocabulary_size - 1}")


def _output_violations(output: generation_pb2.OutputOptions) -> Iterator[Violation]:
    if not 0 <= output.logprobs <= _MAX_LOGPROBS:
        yield _violation("output.logprobs", f"must be from 0 to {_MAX_LOGPROBS}")
    if not 0 <= output.prompt_logprobs <= _MAX_LOGPROBS:
        yield _violation("output.prompt_logprobs", f"must be from 0 to {_MAX_LOGPROBS}")


def _continuation_violations(request: worker_service_pb2.GenerateRequest, facts: EngineFacts) -> Iterator[Violation]:
    continued = request.continued_token_ids
    if continued and not facts.supports_continuation:
        yield _violation("continued_token_ids", f"{facts.name} does not continue outputs")
    if continued and (min(continued) < 0 or max(continued) >= facts.vocabulary_size):
        yield _violation("continued_token_ids", f"ids go from 0 to {facts.vocabulary_size - 1}")
    if len(continued) > request.sampling.max_output_tokens:
        yield _violation("continued_token_ids", "are more than sampling.max_output_tokens")
    if request.continued_text_byte_count < 0:
        yield _violation("continued_text_byte_count", "must be at least 0")
    if continued and request.output.HasField("prompt_logprobs"):
        yield _violation("output.prompt_logprobs", "came with the first tokens; a continuation cannot repeat them")


def _continued(request: worker_service_pb2.GenerateRequest) -> Continued | None:
    if not request.continued_token_ids:
        return None
    return Continued(token_ids=tuple(request.continued_token_ids), text_bytes=request.continued_text_byte_count)


def _sampling(options: generation_pb2.SamplingOptions) -> Sampling:
    scalars = ("max_output_tokens", "min_output_tokens", "seed", *_RANGES)
    given = {name: getattr(options, name) for name in scalars if options.HasField(name)}  # type: ignore[arg-type]
    return Sampling(
        **given,
        stop_strings=tuple(options.stop_strings),
        stop_token_ids=tuple(options.stop_token_ids),
        logit_bias=dict(options.logit_bias),
    )


def _constraint(constraint: generation_pb2.OutputConstraint) -> Constraint | None:
    match constraint.WhichOneof("kind"):
        case None:
            return None
        case "choice":
            return Constraint(kind=ConstraintKind.CHOICE, choices=tuple(constraint.choice.choices))
        case "json_object":
            return Constraint(kind=ConstraintKind.JSON_OBJECT)
        case kind:  # the others are text, and their fields are named as the kinds are
            return Constraint(kind=ConstraintKind(kind), text=getattr(constraint, kind))
