from __future__ import annotations

import jinja2.ext
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.chat import Chat, Message, template_input
from gateway.chat_template import ChatTemplate
from gateway.plain_template import is_plain
from tests.fakes.template_families import FAMILIES

_LOOP = "{%% for m in messages %%}%s{%% endfor %%}"
_PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}",
    (
        "{{ bos_token }}{% for m in messages %}{% if loop.first and m.role != 'system' %}Be kind.{% endif %}"
        "{{ m.role | upper }}: {{ m.content }}{% if not loop.last %}; {% endif %}{% endfor %}"
    ),
    "{% if messages[0].role == 'system' %}[{{ messages[0]['content'] }}]{% endif %}{{ messages[-1].content ~ '!' }}",
    "{% for m in messages if m.role == 'user' %}{{ m.content if m.content is string else '' }},{% endfor %}",
    (
        "{% set n = messages | length %}{% for m in messages %}{% if loop.index0 % 2 == 0 %}{{ n }}{% endif %}"
        "{{ m.content }}{% if m.tool_calls %}?{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    ),
)
_LOOKS = (
    _LOOP % "{% if m.content %}x{% endif %}",
    _LOOP % "{% if 'x' in m.content %}x{% endif %}",
    _LOOP % "{{ m.content | trim }}",
    _LOOP % "{{ m.content.strip() }}",
    _LOOP % "{{ m.content[0] }}",
    _LOOP % "{{ m.content | length }}",
    _LOOP % "{{ m.content * 2 }}",
    _LOOP % "{{ '%s' % m.content }}",
    _LOOP % "{{ m['con' ~ 'tent'] | upper }}",
    _LOOP % "{{ m | tojson }}",
    _LOOP % "{{ m.items() }}",
    _LOOP % "{{ m }}",
    _LOOP % "{% set c = m.content %}{{ c | upper }}",
    _LOOP % "{% set m = 'x' %}{{ m }}",
    _LOOP % "{{ loop.previtem.content | upper }}",
    _LOOP % "{{ 'a' if m.content == 'b' else 'c' }}",
    _LOOP % "{{ strftime_now('%H') }}{{ m.content }}",
    _LOOP % "{{ ['a', 'b'] | random }}{{ m.content }}",
    "{% set messages = messages[1:] %}{{ messages[0].content }}",
    "{{ messages[1:] }}",
    "{{ messages | map(attribute='content') | join }}",
    "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
    "{% macro show(m) %}{{ m.content | upper }}{% endmacro %}{{ show(messages[0]) }}",
    "{% set raise_exception = strftime_now %}{{ raise_exception('%H') }}",
    "{% filter upper %}{{ messages[0].content }}{% endfilter %}",
)


def _is_plain(source: str) -> bool:
    return is_plain(ImmutableSandboxedEnvironment(extensions=[jinja2.ext.loopcontrols]).parse(source))


@pytest.mark.parametrize(("family", "expected"), [("chatml", True), ("phi", True), ("smollm2", True), ("qwen", False)])
def test_families_of_which_templates_are_plain(family: str, *, expected: bool) -> None:
    """What models are trained on marks their answers, too; others look for thoughts in them."""
    assert expected == ChatTemplate(FAMILIES[family].template, FAMILIES[family].named).is_plain


@pytest.mark.parametrize("source", _PLAIN)
def test_a_template_that_only_shows_contents_is_plain(source: str) -> None:
    """It may look at roles, at who is first or last, and at what a plain message does not have."""
    assert _is_plain(source)


@pytest.mark.parametrize("source", _LOOKS)
def test_a_template_that_may_look_at_a_content_is_not_plain(source: str) -> None:
    """Nor is one whose output may differ between two renderings of the same conversation."""
    assert not _is_plain(source)


_MESSAGES = st.lists(
    st.builds(
        lambda role, content: Message(role=role, content=content),
        st.sampled_from(("system", "user", "assistant")),
        st.text(max_size=8) | st.sampled_from(("", " ", "\ue0000\ue001", "{{ 1 }}", "<|im_end|>")),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("source", _PLAIN)
@given(conversations=st.lists(_MESSAGES, min_size=1, max_size=3), is_to_be_answered=st.booleans())
def test_what_is_known_of_a_plain_template_comes_to_what_it_writes(
    source: str, conversations: list[list[Message]], *, is_to_be_answered: bool
) -> None:
    """Whichever conversation was the first of its roles."""
    template = ChatTemplate(source, {"bos_token": "<s>"})
    for messages in conversations:
        chat = Chat(messages=tuple(messages), add_generation_prompt=is_to_be_answered)
        expected = template._render(template_input(chat), add_generation_prompt=is_to_be_answered)
        assert expected == template.render(chat)


def test_a_template_that_writes_the_marks_of_places_is_not_taken_for_plain() -> None:
    """Otherwise a content would stand where the template has written a mark."""
    template = ChatTemplate("{{ '\\ue000' }}0{{ '\\ue001' }}{{ messages[0].content }}", {})
    assert "\ue0000\ue001Hi" == template.render(Chat(messages=(Message(role="user", content="Hi"),)))
