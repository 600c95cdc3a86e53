"""The held-out set: text and chats that no calibration may use, in the form in which models are compared on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantizer.calibration.documents import Document, read_corpus
from quantizer.calibration.tokens import render
from quantizer.errors import CalibrationError
from quantizer.evaluation.answers import greedy_answers

_DATA = Path(__file__).parent.parent / "data"
BUILT_IN = (_DATA / "held_out_chats.jsonl", _DATA / "held_out_text.txt")
WINDOW_TOKENS = 256
ANSWER_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Token ids, of which those from ``first_scored`` on are predicted and scored."""

    token_ids: tuple[int, ...]
    first_scored: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Passages by domain ("chat", "text"), and the chats' prompts with the source's own answers to show."""

    passages: Mapping[str, Sequence[Passage]]
    prompts: Sequence[Document]
    prompt_ids: Sequence[tuple[int, ...]]
    answers: Sequence[tuple[int, ...]]


def read_held_out(path: Path | None) -> Sequence[Document]:
    """The documents of a file in any calibration format, or the built-in set. Raises ``CalibrationError``."""
    documents = [document for file in ([path] if path else BUILT_IN) for document in read_corpus(file).documents]
    if not documents:
        raise CalibrationError(f"{path} holds nothing to judge by")
    return documents


def prepare(documents: Sequence[Document], model: Any, tokenizer: Any) -> HeldOut:
    """Tokenise text into windows, and have the source answer each chat greedily.

    What is scored in a chat is that answer: the positions which a server of the quantized model passes through.
    Raises ``CalibrationError`` where nothing is left to score: a gate with nothing to judge would let everything pass.
    """
    prompts = [document for document in documents if document.messages] if tokenizer.chat_template else []
    prompt_ids = [render(_prompt(document), tokenizer, is_prompt=True) for document in prompts]
    answers = greedy_answers(model, tokenizer, prompt_ids, max_tokens=ANSWER_TOKENS)
    chat = [
        Passage(token_ids=prompt + answer, first_scored=len(prompt))
        for prompt, answer in zip(prompt_ids, answers, strict=True)
        if answer
    ]
    text = tokenizer("\n\n".join(document.text for document in documents if document.text))["input_ids"]
    windows = [
        Passage(token_ids=tuple(text[start : start + WINDOW_TOKENS]))
        for start in range(0, len(text) - 1, WINDOW_TOKENS)
        if len(text) - start > 1
    ]
    passages = {domain: found for domain, found in (("chat", chat), ("text", windows)) if found}
    if not passages:
        raise CalibrationError(
            "the held-out set holds nothing to score: no chat for a chat template, no text of 2 tokens"
        )
    return HeldOut(passages=passages, prompts=prompts, prompt_ids=prompt_ids, answers=answers)


def _prompt(document: Document) -> Sequence[Mapping[str, str]]:
    messages = document.messages
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages
