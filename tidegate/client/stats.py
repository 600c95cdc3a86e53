"""What a reader of one stream can measure by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from tidegate.client.received import Event
from tidegate.inference.v1 import generation_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """Times as the client saw them, network included."""

    ttft_s: float
    """From sending the request to the first token."""
    itl_p50_s: float | None
    """Median time between tokens; None with fewer than two."""
    tokens_per_s: float
    """Output tokens over the whole call, the wait for the first token included."""
    prompt_tokens: int
    cached_prompt_tokens: int
    output_tokens: int
    kv_blocks: int
    finish_reason: str
    """A name of ``FinishReason`` in lower case, without its prefix."""


class StreamMeter:
    """Observes the events of one call. Needs ``OutputOptions.include_token_ids`` to tell the gaps per token."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock: the request is sent now."""
        self._clock = clock
        self._sent_at = clock()
        self._first_at: float | None = None
        self._last_at = self._sent_at
        self._has_delta = False
        self._gaps_s: list[float] = []
        self._finished: generation_pb2.Finished | None = None
        self._finished_at = self._sent_at

    def observe(self, event: Event) -> None:
        """Note the arrival of ``event``."""
        now = self._clock()
        if self._first_at is None:
            self._first_at = self._last_at = now
        if isinstance(event, generation_pb2.Delta):
            self._note_delta(now, tokens=max(1, len(event.token_ids)))
        elif isinstance(event, generation_pb2.Finished):
            self._finished, self._finished_at = event, now

    def stats(self) -> StreamStats:
        """The statistics of the call. Raises ``ValueError`` when it has not finished."""
        if self._finished is None or self._first_at is None:
            raise ValueError("the stream has not finished")
        usage = self._finished.usage
        reason = generation_pb2.FinishReason.Name(self._finished.reason)
        return StreamStats(
            ttft_s=self._first_at - self._sent_at,
            itl_p50_s=median(self._gaps_s) if self._gaps_s else None,
            tokens_per_s=usage.output_token_count / max(self._finished_at - self._sent_at, 1e-9),
            prompt_tokens=usage.prompt_token_count,
            cached_prompt_tokens=usage.cached_prompt_token_count,
            output_tokens=usage.output_token_count,
            kv_blocks=usage.kv_block_count,
            finish_reason=reason.removeprefix("FINISH_REASON_").lower(),
        )

    def _note_delta(self, now: float, *, tokens: int) -> None:
        # The first token arrives with Started: the first delta opens no gap. A delta of several tokens shares its gap.
        if self._has_delta:
            self._gaps_s.extend([(now - self._last_at) / tokens] * tokens)
        self._has_delta = True
        self._last_at = now
