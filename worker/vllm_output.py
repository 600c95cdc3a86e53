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


def engine_output(output: Any, job: GenerationJob) -> EngineOutput:
    """Translate a ``RequestOutput`` of the DELTA kind. Raises ``EngineError`` when vLLM gave the request up."""
    (completion,) = output.outputs
    token_ids, logprobs = tuple(completion.token_ids), completion.logprobs or ()
    finish = None
    if output.finished:
        finish = _finish(output, completion)
        if finish.reason is FinishReason.STOP and finish.stop_string is None:
            # The token that ended the output is no part of it, and vLLM's text does not hold it either.
            token_ids, logprobs = token_ids[:-1], logprobs[:-1]
    return EngineOutput(
        token_ids=token_ids,
        text=completion.text,
        logprobs=_token_logprobs(token_ids, logprobs, job.logprobs),
        # The first prompt token has no predecessor, and so no probability.
        prompt_logprobs=_token_logprobs(
            output.prompt_token_ids[1:], (output.prompt_logprobs or ())[1:], job.prompt_logprobs
        ),
        cached_prompt_tokens=output.num_cached_tokens or 0,
        finish=finish,
    )


def _finish(output: Any, completion: Any) -> EngineFinish:
    try:
        reason = FinishReason(completion.finish_reason)
    except ValueError:
        raise EngineError(f"vLLM ended the request with {completion.finish_reason!r}") from None
    times, stopped_by = output.metrics, completion.stop_reason
    return EngineFinish(
        reason=reason,
        stop_string=stopped_by if isinstance(stopped_by, str) else None,
        stop_token_id=stopped_by if isinstance(stopped_by, int) else None,
        cached_prompt_tokens=output.num_cached_tokens or 0,
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
