"""The reference for rendering: transformers' ``apply_chat_template``, run on a fixed set of conversations.

Imported only for a checkpoint without ``canaries.json``, since it loads transformers. The mapping from ``ChatPrompt``
to a template's variables is written twice on purpose, here and in the gateway: a shared one could not prove anything.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import AutoTokenizer

from tidegate.inference.v1 import chat_pb2
from tidegate.worker.v1 import worker_service_pb2

_LOGGER = logging.getLogger(__name__)

_SYSTEM, _USER = chat_pb2.CHAT_ROLE_SYSTEM, chat_pb2.CHAT_ROLE_USER
_ASSISTANT, _TOOL = chat_pb2.CHAT_ROLE_ASSISTANT, chat_pb2.CHAT_ROLE_TOOL
# What templates that ask for the date are told, here and in gateways (worker.v1.Canary): any day's canaries agree.
_NOW = datetime(2025, 1, 1)  # noqa: DTZ001 - naive, as transformers has it
_ROLE_NAMES = {_SYSTEM: "system", _USER: "user", _ASSISTANT: "assistant", _TOOL: "tool"}


def _chat(
    *turns: tuple[chat_pb2.ChatRole.ValueType, str],
    add_generation_prompt: bool | None = None,
    continue_final_message: bool = False,
) -> chat_pb2.ChatPrompt:
    return chat_pb2.ChatPrompt(
        messages=[chat_pb2.ChatMessage(role=role, content=content) for role, content in turns],
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
    )


def _tool_chat() -> chat_pb2.ChatPrompt:
    call = chat_pb2.ToolCall(id="call00001", name="get_weather", arguments_json='{"city": "Zürich", "days": 2}')
    schema = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    return chat_pb2.ChatPrompt(
        messages=[
            chat_pb2.ChatMessage(role=_USER, content="What is the weather in Zürich?"),
            chat_pb2.ChatMessage(role=_ASSISTANT, content="", tool_calls=[call]),
            chat_pb2.ChatMessage(role=_TOOL, content='{"sky": "clear"}', tool_call_id=call.id, name=call.name),
        ],
        tools=[
            chat_pb2.ToolDefinition(name=call.name, description="Looks out.", parameters_json_schema=schema),
        ],
    )


# None of them holds text that looks like a special token: there the gateway differs from transformers on purpose.
_CONVERSATIONS: dict[str, chat_pb2.ChatPrompt] = {
    "user": _chat((_USER, "What is the capital of France?")),
    "system-and-user": _chat((_SYSTEM, "You answer in one word."), (_USER, "Capital of France?")),
    "multi-turn": _chat(
        (_USER, "Name a prime."), (_ASSISTANT, "7"), (_USER, "A larger one, with 3 digits: 1234567890?")
    ),
    "unicode": _chat((_USER, "naïve café — 東京の天気は?\u00a0👩‍👩‍👧‍👦 e\u0301 \u202eabc\u202c ﷽ \t x")),
    "empty-content": _chat((_SYSTEM, ""), (_USER, "")),
    "white-space": _chat((_USER, "  two lines,\r\n\n\n  indented  "), (_ASSISTANT, "\n ok \n"), (_USER, " ")),
    "long": _chat((_USER, "The quick brown fox jumps over 13 lazy dogs; it's what foxes do.\n" * 40)),
    "without-generation-prompt": _chat((_USER, "Hello"), (_ASSISTANT, "Hello!"), add_generation_prompt=False),
    "continue-final-message": _chat(
        (_USER, "List three colours."), (_ASSISTANT, "Red, green and"), continue_final_message=True
    ),
    "tools": _tool_chat(),
}


def render_canaries(directory: Path) -> tuple[worker_service_pb2.Canary, ...]:
    """Render every conversation that the checkpoint's template accepts. Loads transformers: takes seconds."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    # Of several templates the default one, which is the only one that a gateway is given: asked for tools, transformers
    # would take another.
    template = tokenizer.get_chat_template()
    canaries = []
    for name, chat in _CONVERSATIONS.items():
        if chat.tools and not _knows_tools(template):
            continue  # transformers would leave the tools out, silently; a gateway refuses them
        options = _template_options(chat)
        try:
            messages = _template_messages(chat)
            rendered = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
        except Exception as error:  # noqa: BLE001 - a template may raise what Python has: ZeroDivisionError, ...
            _LOGGER.info("canary %s: the chat template does not accept it: %s", name, error)
            continue
        token_ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        canaries.append(
            worker_service_pb2.Canary(name=name, chat=chat, rendered_prompt=rendered, token_ids=token_ids),
        )
    return tuple(canaries)


def _knows_tools(template: str) -> bool:
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    # transformers' own extension: {% generation %} marks the assistant's part for training and changes no text.
    source = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    try:
        return "tools" in meta.find_undeclared_variables(environment.parse(source))
    except (TemplateError, RecursionError):  # nothing can be rendered with it
        return False


def _template_options(chat: chat_pb2.ChatPrompt) -> dict[str, Any]:
    add_prompt = chat.add_generation_prompt if chat.HasField("add_generation_prompt") else True
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": json.loads(tool.parameters_json_schema or '{"type": "object", "properties": {}}'),
            },
        }
        for tool in chat.tools
    ]
    return {
        "tools": tools or None,
        "add_generation_prompt": add_prompt and not chat.continue_final_message,
        "continue_final_message": chat.continue_final_message,
        "strftime_now": _NOW.strftime,
    }


def _template_messages(chat: chat_pb2.ChatPrompt) -> list[dict[str, Any]]:
    messages = []
    for message in chat.messages:
        variables: dict[str, Any] = {"role": _ROLE_NAMES[message.role], "content": message.content}
        if message.tool_calls:
            variables["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.loads(call.arguments_json or "{}")},
                }
                for call in message.tool_calls
            ]
        if message.role == _TOOL:
            variables |= {"tool_call_id": message.tool_call_id, "name": message.name}
        messages.append(variables)
    return messages
