"""Renders chat templates as transformers' ``apply_chat_template`` does, with jinja2 alone.

Same environment: sandboxed and immutable, blocks trimmed, ``loopcontrols``, ``{% generation %}``, ``tojson`` without
HTML escapes, ``raise_exception`` and ``strftime_now``. Templates come with our own checkpoints; conversations come
from anybody, so that what a template makes of one is bounded in size and time.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import meta, nodes, parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.chat import Chat, Spelling, TemplateInput, plain_roles, template_input
from gateway.errors import ChatTemplateRejectedError
from gateway.plain_template import constants, is_plain
from gateway.violations import quoted
from tidegate.rpc.status import Violation

# A prompt is at most 1 MiB (gateway/chat_prompt.py); JSON escapes can make six characters of one.
_MAX_RENDERED_CHARACTERS = 8 << 20
_MAX_RENDER_S = 1.0

# Status details travel in trailers, which have to stay small.
MAX_NAMED_FIELDS = 16

# What transformers marks the end of a message with that is to be continued. A template that trims the message takes
# the mark's blank too, which is how the two cases are told apart.
_CONTINUE_MARK = "CONTINUE_FINAL_MESSAGE_TAG "

# Between these stands the number of a content that is still to be put in. No template writes them.
_PLACE = "\ue000{}\ue001"
_PLACES = re.compile("\ue000([0-9]+)\ue001")
_MAX_OUTLINES, _MAX_OUTLINED_MESSAGES = 256, 64


class ChatTemplate:
    """One model's chat template, compiled once. Safe to use from several threads."""

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        *,
        clock: Callable[[], datetime] = datetime.now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``special_tokens`` are variables such as ``bos_token``. ``clock`` is what ``strftime_now`` formats.

        Raises ``ValueError`` for a template that cannot be compiled.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: clock().strftime(form)
        try:
            self._template = environment.from_string(source)
            tree = environment.parse(source)
            variables = meta.find_undeclared_variables(tree)
        except (jinja2.TemplateError, SyntaxError) as error:  # the latter of what jinja makes: a break outside of loops
            raise ValueError(f"the chat template cannot be compiled: {error}") from error
        self._source = source
        self._globals = {**self._template.globals, **special_tokens}
        self._special_tokens = dict(special_tokens)
        self._monotonic = monotonic
        self._knows_tools = "tools" in variables
        self._knows_tool_calls = "tool_calls" in source
        written = "".join([*special_tokens.values(), *map(str, constants(tree))])
        self.is_plain = is_plain(tree) and not any(mark in written for mark in _PLACE.format(""))
        # What it writes for plain chats, by their roles: texts of its own, between them the numbers of the contents.
        self._outlines: dict[tuple[bool, tuple[str, ...]], list[str]] = {}

    def with_clock(self, clock: Callable[[], datetime]) -> ChatTemplate:
        """The same template, with another clock behind ``strftime_now``."""
        return ChatTemplate(self._source, self._special_tokens, clock=clock, monotonic=self._monotonic)

    def render(self, chat: Chat, spelling: Spelling = str, answer_spelling: Spelling | None = None) -> str:
        """The prompt of ``chat``, each text of the caller put through ``spelling`` first (gateway/chat.py).

        Raises ``ChatTemplateRejectedError`` when the template refuses the conversation or fails on it.
        """
        if self.is_plain and spelling is str and (roles := plain_roles(chat)) is not None:
            return self._outlined(chat, roles)
        self._check_tools(chat)
        given = template_input(chat, spelling, answer_spelling)
        if not chat.continue_final_message:
            return self._render(given, add_generation_prompt=chat.add_generation_prompt)
        final = given.messages[-1]["content"]
        given.messages[-1]["content"] = final + _CONTINUE_MARK
        return self._opened(self._render(given, add_generation_prompt=False), final)

    def outline(self, roles: tuple[str, ...], add_generation_prompt: bool) -> list[str]:  # noqa: FBT001 - as it is kept
        """What a plain template writes for plain chats of these ``roles``, between each two texts a message's number.

        Raises ``ChatTemplateRejectedError``.
        """
        outline = self._outlines.get((add_generation_prompt, roles))
        if outline is None:
            messages = [{"role": role, "content": _PLACE.format(at)} for at, role in enumerate(roles)]
            given = TemplateInput(messages=messages, tools=None)
            outline = _PLACES.split(self._render(given, add_generation_prompt=add_generation_prompt))
            if len(roles) <= _MAX_OUTLINED_MESSAGES:
                if len(self._outlines) >= _MAX_OUTLINES:
                    self._outlines.clear()
                self._outlines[add_generation_prompt, roles] = outline
        return outline

    def _outlined(self, chat: Chat, roles: tuple[str, ...]) -> str:
        """A plain chat, as the template writes every chat of these roles (gateway/plain_template.py)."""
        pieces = self.outline(roles, chat.add_generation_prompt).copy()
        for at in range(1, len(pieces), 2):
            pieces[at] = chat.messages[int(pieces[at])].content or ""
        rendered = "".join(pieces)
        if len(rendered) > _MAX_RENDERED_CHARACTERS:
            raise rejected("the conversation is too much for the chat template")
        return rendered

    def _render(self, given: TemplateInput, *, add_generation_prompt: bool) -> str:
        give_up_at = self._monotonic() + _MAX_RENDER_S
        pieces: list[str] = []
        size = 0
        try:
            # As Template.generate does it, but that the globals are copied from one dictionary, and not from a chain.
            context = self._template.new_context(
                {
                    **self._globals,
                    "messages": given.messages,
                    "tools": given.tools,
                    "documents": None,
                    "add_generation_prompt": add_generation_prompt,
                },
                shared=True,
            )
            for piece in self._template.root_render_func(context):
                pieces.append(piece)
                size += len(piece)
                if size > _MAX_RENDERED_CHARACTERS or self._monotonic() > give_up_at:
                    raise rejected("the conversation is too much for the chat template")
        except jinja2.TemplateError as error:
            raise rejected(f"the chat template refuses the conversation: {_told(error)}") from error
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            # Templates are programs: what they do to a conversation that they do not foresee raises anything.
            raise rejected(f"the chat template fails on the conversation: {_told(error)}") from error
        return "".join(pieces)

    def _check_tools(self, chat: Chat) -> None:
        """Refuse what the template would leave out without a word, as transformers lets it."""
        if chat.tools and not self._knows_tools:
            raise rejected("the chat template does not know tools", ("chat.tools",))
        callers = [f"chat.messages[{at}].tool_calls" for at, message in enumerate(chat.messages) if message.tool_calls]
        if callers and not self._knows_tool_calls:
            raise rejected("the chat template does not know tool calls", tuple(callers[:MAX_NAMED_FIELDS]))

    def _opened(self, rendered: str, final: str) -> str:
        """``rendered`` up to the end of the final message."""
        mark = _CONTINUE_MARK.strip()
        if "content" not in self._source or final.strip() not in rendered or mark not in rendered:
            raise rejected("the chat template does not show the final message as it is, so it cannot be continued")
        end = rendered.rindex(mark)
        is_untrimmed = rendered.startswith(_CONTINUE_MARK, end)
        return rendered[:end] if is_untrimmed else rendered[:end].rstrip()


class _GenerationBlock(jinja2.ext.Extension):
    """``{% generation %}...{% endgeneration %}``, with which training marks answers. It renders what is in it."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_shown"), [], [], body).set_lineno(line)

    def _shown(self, caller: Macro) -> str:
        return caller()


def rejected(reason: str, fields: tuple[str, ...] = ("chat",)) -> ChatTemplateRejectedError:
    """The error for a conversation of which ``fields`` cannot be rendered, for ``reason``."""
    return ChatTemplateRejectedError(
        reason, violations=[Violation(field=field, description=reason) for field in fields]
    )


def _told(error: Exception) -> str:
    return quoted(str(error), max_characters=200)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - templates call it by position
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 - as ensure_ascii
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
