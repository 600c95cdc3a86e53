"""From a conversation to token ids, such that no text of a caller becomes a control token.

The rule: the special tokens of a prompt are those that the same conversation has with every text of the caller made
meaningless. Where the prompt as transformers would encode it keeps that rule, it is encoded just so. Where it does
not, some text reads as a control token: the template is given that text in a private spelling, and it is encoded as
the ordinary text that it is. Where even this does not keep the rule, the conversation is refused.
docs/chat-templates.md says what that means for callers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from gateway.chat import Chat, caller_texts, form_of
from gateway.chat_template import MAX_NAMED_FIELDS, ChatTemplate, rejected
from gateway.control_tokens import has_escaped_marks, uses_reserved_characters
from gateway.errors import InvalidRequestError
from gateway.prompt_tokenizer import PromptTokenizer
from tidegate.rpc.status import Violation
from tidegate.rpc.token_ids import packed, unpacked

_MAX_KEPT_FORMS, _MAX_KEPT_FORM_CHARACTERS = 1024, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a worker is given: packed ids. ``rendered_prompt`` is empty where there was no template to render."""

    packed_ids: bytes
    rendered_prompt: str = ""

    @property
    def token_ids(self) -> list[int]:
        """The ids one by one."""
        return unpacked(self.packed_ids)


class Renderer:
    """One checkpoint's chat template and tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: PromptTokenizer, template: ChatTemplate | None) -> None:
        """``template`` is None for a model that knows no conversations."""
        self._tokenizer = tokenizer
        self._template = template
        self._plain = tokenizer.plain_prompts(template.outline) if template is not None and template.is_plain else None
        self._expected_of: dict[tuple[object, ...], list[int]] = {}  # by the form of the conversation

    @classmethod
    def from_files(
        cls,
        tokenizer_json: bytes,
        chat_template: str,
        tokenizer_config: bytes,
        *,
        clock: Callable[[], datetime] = datetime.now,
    ) -> Renderer:
        """Build it from a checkpoint's files; an empty ``chat_template`` is none, an empty configuration too.

        ``clock`` is what templates see through ``strftime_now``. Raises ``ValueError`` for files that cannot be used.
        """
        config = json.loads(tokenizer_config or b"{}")
        if not isinstance(config, dict):
            raise ValueError("tokenizer_config.json is not a JSON object")  # noqa: TRY004 - content, not an argument
        tokenizer = PromptTokenizer(tokenizer_json, config, chat_template)
        template = ChatTemplate(chat_template, tokenizer.named_tokens, clock=clock) if chat_template else None
        return cls(tokenizer, template)

    def with_clock(self, clock: Callable[[], datetime]) -> Renderer:
        """The same renderer, with another clock for templates that name the date."""
        return Renderer(self._tokenizer, self._template and self._template.with_clock(clock))

    def render(self, chat: Chat) -> str:
        """The text that the template makes of ``chat``. Raises ``ChatTemplateRejectedError``."""
        return self.prompt(chat).rendered_prompt

    def encode(self, chat: Chat) -> bytes:
        """The packed token ids of ``chat``. Raises ``ChatTemplateRejectedError``."""
        packed_ids = None if self._plain is None else self._plain.encode(chat)
        return self._judged(chat).packed_ids if packed_ids is None else packed_ids

    def prompt(self, chat: Chat) -> Prompt:
        """The token ids of ``chat``, with the text that they are of. Raises ``ChatTemplateRejectedError``."""
        packed_ids = None if self._plain is None else self._plain.encode(chat)
        if packed_ids is None or self._template is None:
            return self._judged(chat)
        return Prompt(packed_ids=packed_ids, rendered_prompt=self._template.render(chat))

    def _judged(self, chat: Chat) -> Prompt:
        """As ``prompt``, by the text as a whole."""
        if self._template is None:
            raise rejected("the model has no chat template")
        tokenizer = self._tokenizer
        text = self._template.render(chat)
        expected = self._expected(self._template, chat)
        if not self._is_structural(chat):
            encoded = tokenizer.encode(text)
            # A vocabulary that holds control tokens can find one where no added token was.
            if encoded.written == packed(expected) and encoded.specials == packed(tokenizer.specials(expected)):
                return Prompt(packed_ids=encoded.ids, rendered_prompt=text)
        return self._disarmed(self._template, chat, expected)

    def encode_text(self, text: str) -> bytes:
        """The packed token ids of plain text, behind the model's beginning-of-text token if it uses one.

        Raises ``InvalidRequestError`` for text that this tokenizer cannot encode without control tokens.
        """
        try:
            return packed(self._tokenizer.encode_text(text))
        except ValueError as error:
            raise InvalidRequestError([Violation(field="text", description=str(error))]) from error

    def _expected(self, template: ChatTemplate, chat: Chat) -> list[int]:
        """The special tokens that the template writes by itself.

        They follow from the conversation's form, and most conversations have one of a few forms.
        """
        silencer = self._tokenizer.control_tokens.silencer
        form = form_of(chat, silencer())
        expected = self._expected_of.get(form)
        if expected is None:
            expected = self._tokenizer.find_specials(template.render(chat, silencer()))
            if len(repr(form)) <= _MAX_KEPT_FORM_CHARACTERS:
                if len(self._expected_of) >= _MAX_KEPT_FORMS:
                    self._expected_of.clear()
                self._expected_of[form] = expected
        return expected

    def _is_structural(self, chat: Chat) -> bool:
        control_tokens = self._tokenizer.control_tokens
        return control_tokens.has_structural and any(
            control_tokens.is_structural(text.text) for text in caller_texts(chat) if not text.is_answer
        )

    def _disarmed(self, template: ChatTemplate, chat: Chat, expected: list[int]) -> Prompt:
        """The prompt of a chat in which some text reads as a control token; ``expected`` are the template's own."""
        control_tokens, texts = self._tokenizer.control_tokens, list(caller_texts(chat))
        suspects = [text.field for text in texts if control_tokens.stand_in(text.text, is_answer=text.is_answer)]
        fields = tuple(dict.fromkeys(suspects))[:MAX_NAMED_FIELDS] or ("chat",)
        if any(uses_reserved_characters(text.text) for text in texts):
            raise rejected(
                "text that reads as a control token stands beside the noncharacters U+FDD0 to U+FDD2", fields
            )
        marked = template.render(chat, control_tokens.marked, control_tokens.marked_answer)
        if has_escaped_marks(marked):
            raise rejected("the chat template escapes text that reads as a control token", fields)
        try:
            ids = self._tokenizer.encode_respelled(control_tokens.unmarked(control_tokens.respelled(marked)))
        except ValueError as error:
            raise rejected(f"text {error}", fields) from error
        if self._tokenizer.specials(ids) != self._tokenizer.specials(expected):
            raise rejected("text of the conversation and the chat template form a control token together", fields)
        return Prompt(packed_ids=packed(ids), rendered_prompt=control_tokens.unmarked(marked))
