"""One generation of the sim engine: its next token, when it ends, and what its consumer has not taken yet."""

from __future__ import annotations

import asyncio

from worker.engine import EngineFinish, EngineOutput, FinishReason, GenerationJob, TokenLogprob
from worker.output_text import OutputText
from worker.sim_language import SimLanguage
from worker.sim_scheduler import ScheduledRequest

_CERTAIN_BIAS = 100.0  # the greatest that the API allows


class SimStream:
    """Written by the engine's step, read by one consumer; what is not taken in time merges into one output."""

    def __init__(
        self, job: GenerationJob, request: ScheduledRequest, language: SimLanguage, *, submitted_at: float
    ) -> None:
        """Appends to ``request.tokens``. ``submitted_at`` is in seconds of the clock that ``advance`` is given."""
        self._job = job
        self._request = request
        self._language = language
        self._output_text = OutputText(language.text, job.sampling, job.continued)
        self._continued_text = self._output_text.continued_text
        biases = job.sampling.logit_bias.items()
        self._certain_token_id = next((token_id for token_id, bias in biases if bias >= _CERTAIN_BIAS), None)
        self._submitted_at = submitted_at
        self._first_token_at: float | None = None
        self._token_ids: list[int] = []
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._prompt_logprobs: list[TokenLogprob] = []
        self._finish: EngineFinish | None = None
        self._error: Exception | None = None
        self._consumer: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether what it continues was the whole output."""
        return self._output_text.is_over

    def end_at_once(self, now: float) -> None:
        """End a generation that ``is_over`` from the beginning."""
        stop = self._output_text.stop
        self._finish = self._end(now, FinishReason.STOP if stop else FinishReason.LENGTH, stop_string=stop)

    async def take(self) -> EngineOutput:
        """All that is new, as soon as there is anything."""
        while not (self._token_ids or self._finish or self._error):
            self._consumer = asyncio.get_running_loop().create_future()
            await self._consumer
        if self._error is not None:
            raise self._error
        output = EngineOutput(
            token_ids=self._token_ids,
            text="".join(self._text),
            logprobs=self._logprobs,
            prompt_logprobs=self._prompt_logprobs,
            cached_prompt_tokens=self._request.cached_tokens,
            finish=self._finish,
            continued_text=self._continued_text,
        )
        self._continued_text = ""
        self._token_ids, self._text, self._logprobs, self._prompt_logprobs = [], [], [], []
        return output

    def advance(self, now: float) -> EngineFinish | None:
        """The engine computed all of ``request.tokens``: add the next one, or end. Returns the end."""
        if self._first_token_at is None:
            self._first_token_at = now
            if self._job.prompt_logprobs is not None:
                prompt = self._job.prompt_token_ids[1:]
                self._prompt_logprobs = self._language.logprobs(prompt, self._job.prompt_logprobs)
        self._finish = self._next_token(now)
        self._wake()
        return self._finish

    def fail(self, error: Exception) -> None:
        """End with ``error`` in place of what was not taken."""
        self._error = error
        self._wake()

    def _next_token(self, now: float) -> EngineFinish | None:
        sampling = self._job.sampling
        position = len(self._request.tokens)
        may_stop = self._output_text.tokens >= sampling.min_output_tokens
        if may_stop and self._language.ends(sampling.seed, position):
            return self._end(now, FinishReason.STOP)
        token_id = self._language.token(sampling.seed, position)
        certain = self._certain_token_id
        if certain is not None and (may_stop or certain not in sampling.stop_token_ids):
            token_id = certain
        if may_stop and token_id in sampling.stop_token_ids:
            return self._end(now, FinishReason.STOP, stop_token_id=token_id)
        self._request.tokens.append(token_id)
        self._token_ids.append(token_id)
        if self._job.logprobs is not None:
            self._logprobs += self._language.logprobs([token_id], self._job.logprobs)
        self._text.append(self._output_text.push(token_id))
        if self._output_text.stop is not None:
            return self._end(now, FinishReason.STOP, stop_string=self._output_text.stop)
        return self._end(now, FinishReason.LENGTH) if self._output_text.is_over else None

    def _end(
        self, now: float, reason: FinishReason, *, stop_string: str | None = None, stop_token_id: int | None = None
    ) -> EngineFinish:
        self._text.append(self._output_text.flush())
        scheduled_at = now if self._request.first_scheduled_at is None else self._request.first_scheduled_at
        first_token_at = now if self._first_token_at is None else self._first_token_at
        return EngineFinish(
            reason=reason,
            stop_string=stop_string,
            stop_token_id=stop_token_id,
            cached_prompt_tokens=self._request.cached_tokens,
            queue_s=scheduled_at - self._submitted_at,
            prefill_s=first_token_at - scheduled_at,
            decode_s=now - first_token_at,
        )

    def _wake(self) -> None:
        if self._consumer is not None and not self._consumer.done():
            self._consumer.set_result(None)
