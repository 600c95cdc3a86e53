"""Takes the prompt off an output's text, where vLLM puts it there.

vLLM decodes prompt and output as one text, to get spaces and characters right that lie across the border. Where the
prompt ends inside a character, or with U+FFFD itself, it takes the prompt for not yet shown: the whole of it comes
before the output's first text, and is searched for stop strings. A prompt of token ids can end so, and so does one
that continues an output that broke off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os.path import commonprefix

from tokenizers import Tokenizer

from worker.engine import EngineFinish, EngineOutput, FinishReason
from worker.stop_text import StopText

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 4  # bytes of UTF-8, and so tokens


def leaked_text(tokenizer: Tokenizer, prompt_token_ids: Sequence[int]) -> str:
    """What vLLM would put before the output's text; "" for an ordinary prompt."""
    tail = list(prompt_token_ids[-_LONGEST_CHARACTER:])
    if not tokenizer.decode(tail).endswith(_REPLACEMENT):
        return ""
    text: str = tokenizer.decode(list(prompt_token_ids))
    return text


class PromptLeak:
    """Cleans the outputs of one generation, and looks for its stop strings itself."""

    def __init__(self, leaked: str, stop_strings: Sequence[str]) -> None:
        """``leaked`` is what ``leaked_text`` says; vLLM must not be given the stop strings."""
        self._leaked = leaked
        self._stop_text = StopText(stop_strings)

    def clean(self, output: EngineOutput) -> EngineOutput:
        """The output as it should have been; with ``finish`` set where a stop string ends it."""
        text = output.text
        if text and self._leaked:
            # The last character of the prompt may have been completed by the output, and is shown then.
            text = text[len(commonprefix((text, self._leaked))) :]  # noqa: RUF071 - of texts, not of paths
            self._leaked = ""
        text, stop = self._stop_text.push(text)
        if stop is not None:
            return replace(output, text=text, finish=EngineFinish(reason=FinishReason.STOP, stop_string=stop))
        return replace(output, text=text + (self._stop_text.flush() if output.finish else ""))
