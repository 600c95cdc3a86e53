"""Conversations encoded stretch by stretch against the same ones rendered, encoded and judged as a whole."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chat import Chat, Message
from gateway.errors import ChatTemplateRejectedError
from gateway.plain_prompts import stand_alone
from gateway.renderer import Renderer
from tests.fakes.served_models import family_renderer
from tests.fakes.template_families import FAMILIES, family_tokenizer

_PLAIN = ("chatml", "smollm2")
_SHOWS = (
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "<|im_st{% for m in messages %}{{ m.content }}{{ m.content }}art|>{{ m.role }}{% endfor %}",
    "{{ messages[0].content }}<|im_end|>{{ messages[-1].content }}x<|im_start|> {{ messages[0].content }}",
    "<|im_start|>{% for m in messages %}{% if m.role == 'user' %} {{ m.content }}\n{% endif %}{% endfor %}",
)


def _texts(family: str) -> st.SearchStrategy[str]:
    added = [token.content for token in family_tokenizer(family).get_added_tokens_decoder().values()]
    halves = [half for token in added[:4] for half in (token[: len(token) // 2], token[len(token) // 2 :])]
    words = st.sampled_from(["", " ", "\n", "the", " two", "  ", "e\u0301", "\ue000", "<", "|>", *added[:4], *halves])
    return st.lists(words | st.text(max_size=4), max_size=6).map("".join)


def _chats(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Chat]:
    roles = st.sampled_from(("system", "user", "assistant"))
    messages = st.lists(st.builds(lambda role, content: Message(role=role, content=content), roles, texts), max_size=4)
    return st.builds(
        lambda messages, asks: Chat(messages=tuple(messages), add_generation_prompt=asks), messages, st.booleans()
    )


def _outcome(renderer: Renderer, chat: Chat, *, as_a_whole: bool) -> bytes | str:
    try:
        return renderer._judged(chat).packed_ids if as_a_whole else renderer.encode(chat)
    except ChatTemplateRejectedError as error:
        return str(error)


@functools.cache
def _renderer(template: str) -> Renderer:
    return Renderer.from_files(family_tokenizer("chatml").to_str().encode(), template, b"{}")


@pytest.mark.parametrize("family", _PLAIN)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_stretches_laid_end_to_end_are_the_prompt(family: str, data: st.DataObject) -> None:
    """Whatever the contents are, control tokens and halves of them among them; and what is refused, is refused."""
    renderer = family_renderer(family)
    chat = data.draw(_chats(_texts(family)))
    assert _outcome(renderer, chat, as_a_whole=True) == _outcome(renderer, chat, as_a_whole=False)


@pytest.mark.parametrize("template", _SHOWS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_templates_may_show_contents_anywhere(template: str, data: st.DataObject) -> None:
    """Side by side, twice, never, at either end, or where a content completes a control token."""
    renderer = _renderer(template)
    chat = data.draw(_chats(_texts("chatml")).filter(lambda chat: bool(chat.messages)))
    assert _outcome(renderer, chat, as_a_whole=True) == _outcome(renderer, chat, as_a_whole=False)


def test_what_is_encoded_by_stretches_of_today() -> None:
    """Templates that look at contents are not, nor vocabularies that read text across its pieces."""
    assert set(_PLAIN) == {family for family in FAMILIES if family_renderer(family)._plain is not None}


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["<s>", "</s>", "<|im_end|>"], True),
        (["<s>", "[INST]", "[/INST]"], True),
        (["<s>", "a<s"], False),
        (["<s>", "<s>>"], False),
        (["<s>", "<s >"], False),
        (["^x", "[y", "-z", "\\"], True),
        (["^x", "[^"], False),
        ([], True),
    ],
)
def test_tokens_that_can_overlap_do_not_stand_alone(tokens: list[str], *, expected: bool) -> None:
    """One that has another one's first character inside, or begins as another one; nor does one with a blank."""
    assert expected == stand_alone(tokens)
