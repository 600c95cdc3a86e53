"""Conversations for hypothesis: every order of roles that the API allows, and texts of every kind."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.fakes.template_families import Family
from tidegate.inference.v1 import chat_pb2

_USER, _ASSISTANT = chat_pb2.CHAT_ROLE_USER, chat_pb2.CHAT_ROLE_ASSISTANT
_SYSTEM, _TOOL = chat_pb2.CHAT_ROLE_SYSTEM, chat_pb2.CHAT_ROLE_TOOL

_PIECES = [
    *("", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\x00", "\x1b[0m", "\ufeff"),
    *(
        "Paris",
        "the capital of France",
        "don't",
        "I'm",
        "12345",
        "3.14",
        "x_y",
        "def f(a):\n    return a\n",
        "e\u0301",
        "Å",
    ),
    *(
        "東京の天気は?",
        "Привет",
        "مرحبا",
        "हिन्दी",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "ﬁ",
        "½",
        "\u202eabc\u202c",
        "\U0010ffff",
        "\ue000",
    ),
    *(
        "<",
        ">",
        "<|",
        "|>",
        "|",
        "{{ x }}",
        "{% if %}",
        "{#",
        "#}",
        "<b>bold</b>",
        '"quoted"',
        "\\n",
        "\\u0041",
        "user",
        "system",
    ),
    *("<think>", "</think>", "im_start", "CONTINUE_FINAL_MESSAGE_TAG "),
]
_CHARACTERS = st.characters(exclude_categories=["Cs"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(_CHARACTERS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(_CHARACTERS, max_size=8), inner, max_size=3),
    max_leaves=5,
)


def texts(extra: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    """Text of any kind, now and then thousands of characters long; ``extra`` are pieces to be used too."""
    pieces = st.lists(st.sampled_from([*_PIECES, *extra]), max_size=8).map("".join)
    short = st.one_of(pieces, st.text(_CHARACTERS, max_size=30))
    return st.one_of(short, short, short, st.builds(lambda text, times: text * times, short, st.integers(2, 300)))


@st.composite
def conversations(
    draw: st.DrawFn, family: Family, spoken: st.SearchStrategy[str], answered: st.SearchStrategy[str]
) -> chat_pb2.ChatPrompt:
    """A valid ``ChatPrompt``: ``spoken`` are the texts of system, user and tools, ``answered`` the assistant's."""
    prompt = chat_pb2.ChatPrompt()
    # A family that is strict about order gets mostly what it takes, so that more than rejections are compared.
    is_orderly = family.needs_turns and draw(st.integers(0, 3)) > 0
    if draw(st.booleans()) and (family.knows_system or not is_orderly):
        prompt.messages.add(role=_SYSTEM, content=draw(spoken))
    if family.knows_tools and draw(st.booleans()):
        for index in range(draw(st.integers(1, 2))):
            schema = json.dumps(draw(_schemas(spoken)))
            prompt.tools.add(name=f"tool_{index}", description=draw(spoken), parameters_json_schema=schema)
    for _ in range(draw(st.integers(1, 5))):
        last = prompt.messages[-1].role if prompt.messages else _SYSTEM
        may_call = family.knows_tool_calls and (len(prompt.tools) > 0 or not family.knows_tools)
        if last in (_SYSTEM, _ASSISTANT) and (is_orderly or draw(st.integers(0, 9)) > 0):
            prompt.messages.add(role=_USER, content=draw(spoken))
        elif may_call and draw(st.booleans()):
            _add_tool_calls(draw, prompt, spoken, answered)
        else:
            prompt.messages.add(role=_ASSISTANT, content=draw(answered))
    final = prompt.messages[-1]
    if final.role == _ASSISTANT and not final.tool_calls and draw(st.booleans()):
        prompt.continue_final_message = True
    elif draw(st.booleans()):
        prompt.add_generation_prompt = draw(st.booleans())
    return prompt


def _schemas(spoken: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    value = st.sampled_from(["string", "integer", "boolean"]).flatmap(
        lambda kind: st.fixed_dictionaries({"type": st.just(kind), "description": spoken})
    )
    return st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from(["city", "days", "größe"]), value)}
    )


def _add_tool_calls(
    draw: st.DrawFn, prompt: chat_pb2.ChatPrompt, spoken: st.SearchStrategy[str], answered: st.SearchStrategy[str]
) -> None:
    message = prompt.messages.add(role=_ASSISTANT)
    if draw(st.booleans()):
        message.content = draw(answered)
    for index in range(draw(st.integers(1, 2))):
        call_id = draw(st.sampled_from([f"call0000{index}", f"call0000{index}", f"call-{index}"]))
        arguments = draw(st.dictionaries(st.sampled_from(["city", "days"]), answered | _JSON.filter(_is_plain)))
        message.tool_calls.add(id=call_id, name="tool_0", arguments_json=json.dumps(arguments, ensure_ascii=False))
    for call in message.tool_calls:
        if draw(st.booleans()):
            prompt.messages.add(role=_TOOL, content=draw(spoken), tool_call_id=call.id, name=call.name)


def _is_plain(value: Any) -> bool:
    return "<" not in json.dumps(value)
