"""Translates vLLM's outputs into the worker's. Needs no vLLM: it only reads attributes of what vLLM hands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker.engine import (
    EngineError,
    EngineFinish,
    EngineOutput,
    FinishReason,
    GenerationJob,
    TokenLogprob,
)


def engine_output(  # noqa: PLR0913 - what a step makes of a request
    job: GenerationJob,
    *,
    token_ids: Sequence[int],
    text: str,
    cached_prompt_tokens: int,
    logprobs: Sequence[Mapping[int, Any]] = (),
    prompt_logprobs: Sequence[Mapping[int, Any]] = (),
    finish: EngineFinish | None = None,
) -> EngineOutput:
    """What a step has made of a request. The log probabilities are vLLM's, those of the prompt from its first token."""
    if finish is not None and finish.reason is FinishReason.STOP and finish.stop_string is None:
        # The token that ended the output is no part of it, and vLLM's text does not hold it either.
        token_ids, logprobs = token_ids[:-1], logprobs[:-1]
    return EngineOutput(
        token_ids=token_ids,
        text=text,
        logprobs=_token_logprobs(token_ids, logprobs, job.logprobs),
        # The first prompt token has no predecessor, and so no probability.
        prompt_logprobs=_token_logprobs(job.prompt_token_ids[1:], prompt_logprobs[1:], job.prompt_logprobs),
        cached_prompt_tokens=cached_prompt_tokens,
        finish=finish,
    )


def engine_finish(reason: str, stopped_by: str | int | None, times: Any, *, cached_prompt_tokens: int) -> EngineFinish:
    """``times`` are vLLM's of the request. Raises ``EngineError`` when vLLM gave the request up."""
    try:
        known_reason = FinishReason(reason)
    except ValueError:
        raise EngineError(f"vLLM ended the request with {reason!r}") from None
    return EngineFinish(
        reason=known_reason,
        stop_string=stopped_by if isinstance(stopped_by, str) else None,
        stop_token_id=stopped_by if isinstance(stopped_by, int) else None,
        cached_prompt_tokens=cached_prompt_tokens,
        queue_s=max(0.0, times.scheduled_ts - times.queued_ts),
        prefill_s=max(0.0, times.first_token_ts - times.scheduled_ts),
        decode_s=max(0.0, times.last_token_ts - times.first_token_ts),
    )


def _token_logprobs(
    token_ids: Sequence[int], positions: Sequence[Mapping[int, Any]], top_count: int | None
) -> tuple[TokenLogprob, ...]:
    """A position comes as a mapping by id: the likeliest tokens, and its own even where that is not among them."""
    if top_count is None or not positions:
        return ()
    found = []
    for token_id, position in zip(token_ids, positions, strict=True):
        likeliest = sorted(position.items(), key=lambda item: item[1].rank)[:top_count]
        own = position[token_id]
        found.append(
            TokenLogprob(
                token_id=token_id,
                token=own.decoded_token or "",
                logprob=own.logprob,
                top=tuple((top_id, top.decoded_token or "", top.logprob) for top_id, top in likeliest),
            )
        )
    return tuple(found)
