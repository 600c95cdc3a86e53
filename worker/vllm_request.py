"""Translates the worker's jobs into vLLM's arguments, and refuses what vLLM would not survive. Needs no vLLM."""

from __future__ import annotations

from typing import Any

from worker.engine import Constraint, ConstraintKind, EngineError, EngineFacts, GenerationJob
from worker.vllm_continuation import continuation_arguments

# Under it vLLM warns in each request, and computes with this value.
_LOWEST_TEMPERATURE = 0.01
_SEED_STEP = 0x9E3779B97F4A7C15  # odd, so that no two places share a seed
# On a CPU vLLM computes the logits of a whole prompt at once for prompt_logprobs: 10 bytes for each, as measured. On a
# GPU it takes 1,024 tokens at a time.
_PROMPT_LOGIT_BYTES, _MAX_PROMPT_LOGITS_BYTES = 10, 1 << 32


def refuse_what_never_fits(job: GenerationJob, facts: EngineFacts, *, is_cpu: bool) -> None:
    """Raises ``EngineError`` for a job that would take the engine down with it.

    A request larger than the KV pool waits in vLLM's scheduler for ever, and every later one waits behind it.
    """
    prompt_tokens = len(job.prompt_token_ids)
    longest = min(prompt_tokens + job.sampling.max_output_tokens, facts.context_length)
    if longest > facts.kv_pool_tokens:
        raise EngineError(f"{longest} tokens do not fit the KV pool of {facts.kv_pool_tokens}")
    if job.prompt_logprobs is not None and is_cpu:
        logits_bytes = prompt_tokens * facts.vocabulary_size * _PROMPT_LOGIT_BYTES
        if logits_bytes > _MAX_PROMPT_LOGITS_BYTES:
            raise EngineError(f"prompt_logprobs of {prompt_tokens} tokens take {logits_bytes} bytes of memory")


def sampling_arguments(job: GenerationJob, *, seeds_by_position: bool = True) -> dict[str, Any]:
    """The arguments of vLLM's ``SamplingParams`` but stop strings, and those that are vLLM's own objects.

    ``seeds_by_position``: what a seed makes of a token depends on its place, and not on how many were drawn before.
    """
    sampling, continued = job.sampling, job.continued_tokens
    is_greedy = sampling.temperature == 0.0
    has_penalties = bool(sampling.presence_penalty or sampling.frequency_penalty)
    uncounted = 0 if has_penalties else continued  # tokens that are output to us, and prompt to vLLM
    return {
        "max_tokens": sampling.max_output_tokens - uncounted,
        # Where a constraint ends the output, only the end token is left to choose; forbidding it as well leaves none.
        "min_tokens": 0 if job.constraint else max(0, sampling.min_output_tokens - uncounted),
        "temperature": 0.0 if is_greedy else max(sampling.temperature, _LOWEST_TEMPERATURE),
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        # Without effect on a greedy choice. To vLLM -1 means none.
        "seed": None
        if is_greedy or sampling.seed is None
        # Drawing the same numbers once more would have the output repeat itself.
        else (sampling.seed + (0 if seeds_by_position else continued * _SEED_STEP)) % 2**63,
        "stop_token_ids": list(sampling.stop_token_ids),
        "logit_bias": dict(sampling.logit_bias) or None,
        "logprobs": job.logprobs,
        "prompt_logprobs": job.prompt_logprobs,
        "extra_args": continuation_arguments(continued, has_penalties=has_penalties) if continued else None,
    }


def constraint_arguments(constraint: Constraint) -> dict[str, Any]:
    """The arguments of vLLM's ``StructuredOutputsParams``."""
    match constraint.kind:
        case ConstraintKind.JSON_SCHEMA:
            return {"json": constraint.text}
        case ConstraintKind.REGEX:
            return {"regex": constraint.text}
        case ConstraintKind.CHOICE:
            return {"choice": list(constraint.choices)}
        case ConstraintKind.GRAMMAR:
            return {"grammar": constraint.text}
        case ConstraintKind.JSON_OBJECT:
            return {"json_object": True}
