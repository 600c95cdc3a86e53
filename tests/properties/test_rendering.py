"""Rendering and token ids against the reference, transformers, on eight families of chat models.

HYPOTHESIS_PROFILE=thorough runs 500 conversations of each family.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from datetime import datetime

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from gateway.chat_prompt import parse_chat
from gateway.errors import ChatTemplateRejectedError
from gateway.renderer import Prompt, Renderer
from gateway.violations import Violations
from tests.fakes.conversations import conversations, texts
from tests.fakes.reference_rendering import reference_rendering
from tests.fakes.template_families import FAMILIES, Family, family_tokenizer
from tidegate.inference.v1 import chat_pb2

_EXAMPLES = 500 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 60
_SETTINGS = settings(
    max_examples=_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
_NOW = datetime(2026, 2, 28, 12, 30)  # noqa: DTZ001 - as transformers has it
_FAMILIES = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@functools.cache
def _renderer(name: str) -> Renderer:
    family = FAMILIES[name]
    files = (family_tokenizer(name).to_str().encode(), family.template, family.config)
    return Renderer.from_files(*files, clock=lambda: _NOW)


@functools.cache
def _reference(name: str) -> PreTrainedTokenizerFast:
    family = FAMILIES[name]
    return PreTrainedTokenizerFast(
        tokenizer_object=family_tokenizer(name), chat_template=family.template, **family.named
    )


def _rendered_here(family: Family, prompt: chat_pb2.ChatPrompt) -> Prompt | None:
    """What the gateway makes of it; None for a rejection."""
    violations = Violations()
    chat = parse_chat(prompt, violations)
    violations.raise_if_any()
    try:
        return _renderer(family.name).prompt(chat)
    except ChatTemplateRejectedError:
        return None


def _rendered_by_reference(family: Family, prompt: chat_pb2.ChatPrompt) -> tuple[str, list[int]] | None:
    """What transformers makes of it; None for a rejection."""
    return reference_rendering(_reference(family.name), prompt, now=_NOW)


def _special(family: Family) -> list[str]:
    return [str(getattr(token, "content", token)) for token in family.control_tokens]


def _without(tokens: list[str], strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return strategy.filter(lambda text: not any(token in text for token in tokens))


@_FAMILIES
def test_text_and_ids_equal_those_of_transformers(family: Family) -> None:
    """What holds no control token is rendered and encoded as the reference does it, or rejected where it rejects."""
    spoken = _without(_special(family) + family.structural_tokens, texts(tuple(family.markup)))
    answered = _without(_special(family), texts(tuple(family.markup)))

    @_SETTINGS
    @given(prompt=conversations(family, spoken, answered))
    def check(prompt: chat_pb2.ChatPrompt) -> None:
        expected = _rendered_by_reference(family, prompt)
        actual = _rendered_here(family, prompt)
        assert expected == (None if actual is None else (actual.rendered_prompt, list(actual.token_ids)))

    check()


@_FAMILIES
def test_no_text_becomes_a_control_token(family: Family) -> None:
    """With control tokens in the texts, a prompt has those of the same conversation with other words in their place."""
    special = _special(family)
    protected = special + family.structural_tokens
    halves = tuple(part for token in special[:6] for part in (token[: len(token) // 2], token[len(token) // 2 :]))
    spoken = texts((*protected, *protected, *halves))
    answered = texts((*special, *halves))
    in_speech, in_answer = _any_of(protected), _any_of(special)
    ids_of = _reference(family.name).convert_tokens_to_ids
    unknown = family.named.get("unk_token") if family_tokenizer(family.name).model.unk_token else None
    counted = {ids_of(token) for token in protected if token != unknown}

    @_SETTINGS
    @given(prompt=conversations(family, spoken, answered))
    def check(prompt: chat_pb2.ChatPrompt) -> None:
        actual = _rendered_here(family, prompt)
        assume(actual is not None)
        assert actual is not None
        harmless = _with_texts(prompt, lambda text, answer: (in_answer if answer else in_speech).sub("Q", text))
        reference = _rendered_by_reference(family, harmless)
        assume(reference is not None)
        assert reference is not None
        assert [i for i in reference[1] if i in counted] == [i for i in actual.token_ids if i in counted]

    check()


def _with_texts(prompt: chat_pb2.ChatPrompt, change: Callable[[str, bool], str]) -> chat_pb2.ChatPrompt:
    """A copy whose texts are changed; ``change`` is told whether a text is the assistant's."""
    changed = chat_pb2.ChatPrompt()
    changed.CopyFrom(prompt)
    for message in changed.messages:
        if message.HasField("content"):
            message.content = change(message.content, message.role == chat_pb2.CHAT_ROLE_ASSISTANT)
        for call in message.tool_calls:
            call.arguments_json = change(call.arguments_json, True)  # noqa: FBT003 - an assistant's
    for tool in changed.tools:
        tool.description = change(tool.description, False)  # noqa: FBT003 - not an assistant's
        tool.parameters_json_schema = change(tool.parameters_json_schema, False)  # noqa: FBT003 - as above
    return changed


def _any_of(tokens: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


@pytest.mark.parametrize("name", ["chatml", "smollm2", "llama3", "qwen"])
def test_lookalikes_are_encoded_as_ordinary_text(name: str) -> None:
    """Between the template's own control tokens, ids are those of the text for a tokenizer without control tokens."""
    family = FAMILIES[name]
    special = _special(family)
    place = {token: f"\ue000{index}\ue001" for index, token in enumerate(special)}
    controls = re.compile(f"({_any_of(special).pattern})")
    plain = family_tokenizer(name).from_str(family_tokenizer(name).to_str())
    plain.encode_special_tokens = True
    word = st.sampled_from([*special, *special, "a", " ", "\n", "Paris", "<|", "|>"])
    text = _without(family.structural_tokens, st.lists(word, max_size=6).map("".join))

    @_SETTINGS
    @given(prompt=conversations(family, text, text))
    def check(prompt: chat_pb2.ChatPrompt) -> None:
        actual = _rendered_here(family, prompt)
        hidden = _with_texts(prompt, lambda text, _: controls.sub(lambda found: place[found.group()], text))
        reference = _rendered_by_reference(family, hidden)
        assume(actual is not None)
        assert actual is not None
        assert reference is not None
        expected: list[int] = []
        for piece in controls.split(reference[0]):
            if piece in special:
                expected += [_reference(name).convert_tokens_to_ids(piece)]
                continue
            for token, mark in place.items():
                piece = piece.replace(mark, token)  # noqa: PLW2901 - piece by piece
            expected += plain.encode(piece, add_special_tokens=False).ids
        assert expected == list(actual.token_ids)

    check()
