"""Documents as the model reads them: rendered by its own chat template, then tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quantizer.calibration.documents import Document, Message
from quantizer.errors import CalibrationError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedDocument:
    """``prompt_tokens`` counts what a request would have sent: everything up to the last answer."""

    token_ids: tuple[int, ...]
    prompt_tokens: int
    turns: int  # messages of the user; 0 for plain text


def tokenize(document: Document, tokenizer: Any) -> TokenizedDocument:
    """Render and tokenise. Raises ``CalibrationError`` for a chat that the model's template refuses."""
    if not document.messages:
        token_ids = tuple(tokenizer(document.text)["input_ids"])
        return TokenizedDocument(token_ids=token_ids, prompt_tokens=len(token_ids), turns=0)
    messages = document.messages
    token_ids = render(messages, tokenizer, is_prompt=False)
    prompt_tokens = len(token_ids)
    if messages[-1]["role"] == "assistant" and len(messages) > 1:
        prompt_tokens = len(render(messages[:-1], tokenizer, is_prompt=True))
    turns = sum(message["role"] == "user" for message in messages)
    return TokenizedDocument(token_ids=token_ids, prompt_tokens=prompt_tokens, turns=turns)


def render(messages: Sequence[Message], tokenizer: Any, *, is_prompt: bool) -> tuple[int, ...]:
    """Token ids of a chat; a prompt ends where the assistant is to begin."""
    if not tokenizer.chat_template:
        raise CalibrationError("the tokenizer has no chat template: calibrate with plain text (a .txt file)")
    try:
        rendered = tokenizer.apply_chat_template(
            list(messages), tokenize=True, add_generation_prompt=is_prompt, return_dict=False
        )
    except Exception as error:  # a template may raise whatever it likes, jinja2's errors among others
        raise CalibrationError(f"the chat template refuses a chat: {error}: {messages[0]['content'][:60]!r}") from error
    return tuple(rendered)
