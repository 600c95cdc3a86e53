"""One generation of the sim engine: its next token, and when it ends."""

from __future__ import annotations

from worker.engine import EngineFinish, EngineOutput, FinishReason, GenerationJob
from worker.output_port import OutputPort
from worker.output_text import OutputText
from worker.sim_language import SimLanguage
from worker.sim_scheduler import ScheduledRequest

_CERTAIN_BIAS = 100.0  # the greatest that the API allows


class SimStream:
    """Written by the engine's step; what comes of it goes through the port."""

    def __init__(
        self,
        job: GenerationJob,
        request: ScheduledRequest,
        language: SimLanguage,
        port: OutputPort,
        *,
        submitted_at: float,
    ) -> None:
        """Appends to ``request.tokens``. ``submitted_at`` is in seconds of the clock that ``advance`` is given."""
        self.port = port
        self._job = job
        self._request = request
        self._language = language
        self._output_text = OutputText(language.text, job.sampling, job.continued)
        self._continued_text = self._output_text.continued_text
        biases = job.sampling.logit_bias.items()
        self._certain_token_id = next((token_id for token_id, bias in biases if bias >= _CERTAIN_BIAS), None)
        self._submitted_at = submitted_at
        self._first_token_at: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether what it continues was the whole output."""
        return self._output_text.is_over

    def end_at_once(self, now: float) -> None:
        """End a generation that ``is_over`` from the beginning."""
        stop = self._output_text.stop
        output = EngineOutput()
        self._end(output, now, FinishReason.STOP if stop else FinishReason.LENGTH, stop_string=stop)
        self._put(output)

    def advance(self, now: float) -> EngineFinish | None:
        """The engine computed all of ``request.tokens``: add the next one, or end. Returns the end."""
        output = EngineOutput()
        if self._first_token_at is None:
            self._first_token_at = now
            if self._job.prompt_logprobs is not None:
                prompt = self._job.prompt_token_ids[1:]
                output.prompt_logprobs = self._language.logprobs(prompt, self._job.prompt_logprobs)
        self._next_token(output, now)
        self._put(output)
        return output.finish

    def _put(self, output: EngineOutput) -> None:
        output.cached_prompt_tokens = self._request.cached_tokens
        output.continued_text, self._continued_text = self._continued_text, ""
        self.port.put(output)

    def _next_token(self, output: EngineOutput, now: float) -> None:
        sampling = self._job.sampling
        position = len(self._request.tokens)
        may_stop = self._output_text.tokens >= sampling.min_output_tokens
        if may_stop and self._language.ends(sampling.seed, position):
            self._end(output, now, FinishReason.STOP)
            return
        token_id = self._language.token(sampling.seed, position)
        certain = self._certain_token_id
        if certain is not None and (may_stop or certain not in sampling.stop_token_ids):
            token_id = certain
        if may_stop and token_id in sampling.stop_token_ids:
            self._end(output, now, FinishReason.STOP, stop_token_id=token_id)
            return
        self._request.tokens.append(token_id)
        output.token_ids = (token_id,)
        if self._job.logprobs is not None:
            output.logprobs = self._language.logprobs([token_id], self._job.logprobs)
        output.text = self._output_text.push(token_id)
        if self._output_text.stop is not None:
            self._end(output, now, FinishReason.STOP, stop_string=self._output_text.stop)
        elif self._output_text.is_over:
            self._end(output, now, FinishReason.LENGTH)

    def _end(
        self,
        output: EngineOutput,
        now: float,
        reason: FinishReason,
        *,
        stop_string: str | None = None,
        stop_token_id: int | None = None,
    ) -> None:
        output.text += self._output_text.flush()
        scheduled_at = now if self._request.first_scheduled_at is None else self._request.first_scheduled_at
        first_token_at = now if self._first_token_at is None else self._first_token_at
        output.finish = EngineFinish(
            reason=reason,
            stop_string=stop_string,
            stop_token_id=stop_token_id,
            cached_prompt_tokens=self._request.cached_tokens,
            queue_s=scheduled_at - self._submitted_at,
            prefill_s=first_token_at - scheduled_at,
            decode_s=now - first_token_at,
        )
