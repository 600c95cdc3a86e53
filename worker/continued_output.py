"""Makes vLLM's outputs for a prompt that ends with output into the rest of that output.

vLLM knows nothing of the text that the client has, nor of a stop string that began in it. So the text is decoded here,
and vLLM is given no stop strings.
"""

from __future__ import annotations

from dataclasses import replace

from tokenizers import Tokenizer

from worker.engine import Continued, EngineFinish, EngineOutput, FinishReason, GenerationJob
from worker.output_text import OutputText
from worker.token_text import TokenText


class ContinuedOutput:
    """The outputs of one continued generation."""

    def __init__(self, tokenizer: Tokenizer, job: GenerationJob, continued: Continued) -> None:
        self._text = OutputText(TokenText(tokenizer, job.prompt_token_ids).decode, job.sampling, continued)
        self._continued_text = self._text.continued_text

    def end(self) -> EngineOutput | None:
        """The last output, where what is continued was all: only the news of its end was lost."""
        if not self._text.is_over:
            return None
        return self._ended(EngineOutput())

    def clean(self, output: EngineOutput) -> EngineOutput:
        """``output`` with its text, without what comes behind a stop string, and with ``finish`` where one ends it."""
        shown, count = "", 0
        for token_id in output.token_ids:
            shown += self._text.push(token_id)
            count += 1
            if self._text.stop is not None:
                break
        logprobs = output.logprobs[:count]
        output = replace(output, token_ids=output.token_ids[:count], text=shown, logprobs=logprobs)
        if self._text.stop is not None:
            return self._ended(output)
        return self._introduced(replace(output, text=shown + (self._text.flush() if output.finish else "")))

    def _ended(self, output: EngineOutput) -> EngineOutput:
        reason = FinishReason.LENGTH if self._text.stop is None else FinishReason.STOP
        finish = EngineFinish(reason=reason, stop_string=self._text.stop)
        return self._introduced(replace(output, text=output.text + self._text.flush(), finish=finish))

    def _introduced(self, output: EngineOutput) -> EngineOutput:
        continued_text, self._continued_text = self._continued_text, ""
        return replace(output, continued_text=continued_text)
