from __future__ import annotations

import itertools
from datetime import datetime

import pytest

from gateway.canary import CANARY_TIME, diverging_canary
from gateway.chat import Chat, Message
from gateway.chat_template import ChatTemplate
from gateway.errors import ChatTemplateRejectedError
from gateway.renderer import Renderer
from tests.fakes.served_models import family_renderer
from tests.fakes.template_families import FAMILIES, family_tokenizer
from tidegate.inference.v1 import chat_pb2
from tidegate.worker.v1 import worker_service_pb2

_HI = Chat(messages=(Message(role="user", content="Hi"),))


def _render(source: str, chat: Chat = _HI) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}).render(chat)


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>Hi"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "Hi!"),
        ("{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% endfor %}", "x\n"),
        ("{% for m in 'abc' %}{% if m == 'b' %}{% break %}{% endif %}{{ m }}{% endfor %}", "a"),
        ("{{ {'b': '<é>', 'a': [1, 2]} | tojson }}", '{"b": "<é>", "a": [1, 2]}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{{ tools is none }} {{ undefined_thing }}.", "True ."),
        ("{{ strftime_now('%Y-%m-%d') }}", "2026-02-28"),
    ],
)
def test_environment_is_that_of_transformers(source: str, rendered: str) -> None:
    """Trimmed blocks, loop controls, JSON without HTML escapes, the clock, lenient undefined names."""
    template = ChatTemplate(source, {"bos_token": "<s>"}, clock=lambda: datetime(2026, 2, 28))  # noqa: DTZ001 - naive
    assert rendered == template.render(_HI)


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('No.') }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[7].content.strip() }}",
        "{{ nothing.at.all }}",
        "{{ 1 // 0 }}",
        "{{ messages.append(1) }}",
        "{{ messages.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% for i in range(10000000000) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}",
    ],
)
def test_what_a_template_fails_on_is_a_rejection(source: str) -> None:
    """Refusals, faults, escapes from the sandbox and endless output all end in the one error, which names the chat."""
    with pytest.raises(ChatTemplateRejectedError) as caught:
        _render(source)
    assert ["chat"] == [violation.field for violation in caught.value.violations]


def test_rendering_is_given_up_after_a_second() -> None:
    """By the clock that it is given, between two pieces of output."""
    ticks = itertools.count()
    template = ChatTemplate("{% for i in range(1000) %}{{ i }}{% endfor %}", {}, monotonic=lambda: next(ticks) / 100)
    with pytest.raises(ChatTemplateRejectedError, match="too much"):
        template.render(_HI)


@pytest.mark.parametrize("source", ["{% for %}", "{% break %}"])
def test_a_template_that_is_none_is_refused_at_load(source: str) -> None:
    """A checkpoint with such a template is found out before any request."""
    with pytest.raises(ValueError, match="cannot be compiled"):
        _render(source)


def test_a_message_can_only_be_continued_where_it_is_shown() -> None:
    """A template that hides the final message cannot leave it open."""
    chat = Chat(
        messages=(*_HI.messages, Message(role="assistant", content="Ho ")),
        add_generation_prompt=False,
        continue_final_message=True,
    )
    assert "Ho " == _render("{{ messages[-1].content }}<end>", chat)
    assert "[Ho" == _render("[{{ messages[-1].content | trim }}<end>", chat)
    with pytest.raises(ChatTemplateRejectedError, match="cannot be continued"):
        _render("{{ messages[0].content }}", chat)


def test_a_model_without_a_template_takes_no_conversations() -> None:
    """It may still complete text."""
    renderer = Renderer.from_files(family_tokenizer("chatml").to_str().encode(), "", b"")
    assert renderer.encode_text("Hi")
    with pytest.raises(ChatTemplateRejectedError, match="no chat template"):
        renderer.prompt(_HI)


def _canary(renderer: Renderer) -> worker_service_pb2.Canary:
    prompt = renderer.with_clock(lambda: CANARY_TIME).prompt(_HI)
    message = chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_USER, content="Hi")
    return worker_service_pb2.Canary(
        name="greeting",
        chat=chat_pb2.ChatPrompt(messages=[message]),
        rendered_prompt=prompt.rendered_prompt,
        token_ids=prompt.token_ids,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_worker_of_the_same_checkpoint_does_not_diverge(family: str) -> None:
    """Whatever day it is, for a template that names the date too."""
    renderer = family_renderer(family).with_clock(lambda: datetime(1999, 12, 31))  # noqa: DTZ001 - naive, as there
    assert diverging_canary(renderer, [_canary(renderer)]) is None


def test_a_diverging_canary_tells_where() -> None:
    """Its name, what differs and from which place on."""
    canary = _canary(family_renderer("chatml"))
    canary.token_ids[2] += 1
    divergence = diverging_canary(family_renderer("chatml"), [_canary(family_renderer("chatml")), canary])
    assert divergence is not None
    assert ("greeting", "token_ids", 2) == (divergence.canary, divergence.what, divergence.position)
    canary.rendered_prompt += "x"
    divergence = diverging_canary(family_renderer("chatml"), [canary])
    assert divergence is not None
    assert ("rendered_prompt", len(canary.rendered_prompt) - 1) == (divergence.what, divergence.position)
    assert "greeting" in str(divergence)


def test_a_canary_that_is_refused_diverges() -> None:
    """A gateway that cannot render what the worker rendered does not agree with it."""
    canary = _canary(family_renderer("chatml"))
    canary.chat.messages[0].role = chat_pb2.CHAT_ROLE_TOOL
    divergence = diverging_canary(family_renderer("chatml"), [canary])
    assert divergence is not None
    assert "chat" == divergence.what
