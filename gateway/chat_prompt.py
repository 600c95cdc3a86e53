"""Turns ``ChatPrompt`` into a ``Chat``, by the rules in chat.proto."""

from __future__ import annotations

import re
from typing import Any

from gateway.chat import Chat, Message, Tool, ToolCall
from gateway.strict_json import parse_strict_json
from gateway.violations import Violations
from tidegate.inference.v1 import chat_pb2

MAX_PROMPT_BYTES = 1 << 20

_MAX_MESSAGES = 4096
_MAX_TOOLS = 128
_MAX_TOOL_CALLS = 128
_MAX_CALL_ID_CHARACTERS = 256
_MAX_JSON_DEPTH = 32
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NO_PARAMETERS = '{"type": "object", "properties": {}}'

_ROLES = {
    chat_pb2.CHAT_ROLE_SYSTEM: "system",
    chat_pb2.CHAT_ROLE_USER: "user",
    chat_pb2.CHAT_ROLE_ASSISTANT: "assistant",
    chat_pb2.CHAT_ROLE_TOOL: "tool",
}


def parse_chat(prompt: chat_pb2.ChatPrompt, violations: Violations) -> Chat:
    """The chat; what is wrong with it goes into ``violations``, and then the chat is not to be used."""
    if prompt.ByteSize() > MAX_PROMPT_BYTES:
        violations.add("chat", f"is larger than {MAX_PROMPT_BYTES} bytes")
        return Chat(messages=())
    if not 1 <= len(prompt.messages) <= _MAX_MESSAGES:
        violations.add("chat.messages", f"has to hold 1 to {_MAX_MESSAGES} messages")
        return Chat(messages=())
    if len(prompt.tools) > _MAX_TOOLS:
        violations.add("chat.tools", f"has to hold at most {_MAX_TOOLS} tools")
        return Chat(messages=())
    _check_order(prompt, violations)
    _check_continuation(prompt, violations)
    continues = prompt.continue_final_message
    return Chat(
        messages=tuple(
            _parse_message(message, f"chat.messages[{index}]", violations)
            for index, message in enumerate(prompt.messages)
        ),
        tools=_parse_tools(prompt, violations),
        add_generation_prompt=prompt.add_generation_prompt
        if prompt.HasField("add_generation_prompt")
        else not continues,
        continue_final_message=continues,
    )


def _check_continuation(prompt: chat_pb2.ChatPrompt, violations: Violations) -> None:
    if not prompt.continue_final_message:
        return
    field = "chat.continue_final_message"
    if prompt.add_generation_prompt:
        violations.add(field, "contradicts add_generation_prompt")
    last = prompt.messages[-1] if prompt.messages else chat_pb2.ChatMessage()
    if last.role != chat_pb2.CHAT_ROLE_ASSISTANT or not last.HasField("content") or last.tool_calls:
        violations.add(field, "needs an assistant message with content and without tool calls at the end")


def _check_order(prompt: chat_pb2.ChatPrompt, violations: Violations) -> None:
    """Who may speak after whom, and which call a tool message answers."""
    open_calls: list[str] = []  # ids of the nearest assistant's calls that no tool message has answered
    before = chat_pb2.CHAT_ROLE_UNSPECIFIED
    for index, message in enumerate(prompt.messages):
        role = message.role
        if role == chat_pb2.CHAT_ROLE_SYSTEM and index > 0:
            violations.add(f"chat.messages[{index}].role", "a system message can only come first")
        elif role == chat_pb2.CHAT_ROLE_USER and before == chat_pb2.CHAT_ROLE_USER:
            violations.add(f"chat.messages[{index}].role", "two user messages in a row")
        elif role == chat_pb2.CHAT_ROLE_ASSISTANT:
            open_calls = [call.id for call in message.tool_calls[:_MAX_TOOL_CALLS]]
        elif role == chat_pb2.CHAT_ROLE_TOOL and not open_calls:
            description = "a tool message has to answer a tool call of the assistant before it"
            violations.add(f"chat.messages[{index}].role", description)
        elif role == chat_pb2.CHAT_ROLE_TOOL and message.tool_call_id in open_calls:
            open_calls.remove(message.tool_call_id)
        elif role == chat_pb2.CHAT_ROLE_TOOL:
            description = "answers no open tool call of the assistant before it"
            violations.add(f"chat.messages[{index}].tool_call_id", description)
        before = role


def _parse_message(message: chat_pb2.ChatMessage, path: str, violations: Violations) -> Message:
    role = _ROLES.get(message.role, "")
    is_assistant, is_tool = role == "assistant", role == "tool"
    if not role:
        violations.add(f"{path}.role", "is not a known role")
    if not message.HasField("content") and not (is_assistant and message.tool_calls):
        violations.add(f"{path}.content", "is required; it may be empty")
    if message.tool_calls and not is_assistant:
        violations.add(f"{path}.tool_calls", "only assistant messages have tool calls")
    if len(message.tool_calls) > _MAX_TOOL_CALLS:
        violations.add(f"{path}.tool_calls", f"has to hold at most {_MAX_TOOL_CALLS} calls")
    if message.tool_call_id and not is_tool:
        violations.add(f"{path}.tool_call_id", "only tool messages answer a call")
    if message.name and not is_tool:
        violations.add(f"{path}.name", "only tool messages have a name")
    return Message(
        role=role,
        content=message.content if message.HasField("content") else None,
        tool_calls=_parse_tool_calls(message, path, violations),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def _parse_tool_calls(message: chat_pb2.ChatMessage, path: str, violations: Violations) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    seen: set[str] = set()
    for index, call in enumerate(message.tool_calls[:_MAX_TOOL_CALLS]):
        field = f"{path}.tool_calls[{index}]"
        if len(call.id) > _MAX_CALL_ID_CHARACTERS:
            violations.add(f"{field}.id", f"is longer than {_MAX_CALL_ID_CHARACTERS} characters")
        if call.id and call.id in seen:
            violations.add(f"{field}.id", "is the id of another call of this message")
        seen.add(call.id)
        if not call.name:
            violations.add(f"{field}.name", "is required")
        arguments = _parse_object(call.arguments_json or "{}", f"{field}.arguments_json", violations)
        calls.append(ToolCall(id=call.id, name=call.name, arguments=arguments))
    return tuple(calls)


def _parse_tools(prompt: chat_pb2.ChatPrompt, violations: Violations) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    seen: set[str] = set()
    for index, tool in enumerate(prompt.tools):
        field = f"chat.tools[{index}]"
        if not _TOOL_NAME.fullmatch(tool.name):
            violations.add(f"{field}.name", "has to be 1 to 64 characters of [A-Za-z0-9_-]")
        elif tool.name in seen:
            violations.add(f"{field}.name", "is the name of another tool")
        seen.add(tool.name)
        text = tool.parameters_json_schema or _NO_PARAMETERS
        schema = _parse_object(text, f"{field}.parameters_json_schema", violations)
        tools.append(Tool(name=tool.name, description=tool.description, parameters=schema))
    return tuple(tools)


def _parse_object(text: str, field: str, violations: Violations) -> dict[str, Any]:
    """The JSON object in ``text``."""
    try:
        value = parse_strict_json(text, max_depth=_MAX_JSON_DEPTH)
    except ValueError as error:
        violations.add(field, str(error))
        return {}
    if not isinstance(value, dict):
        violations.add(field, "is not a JSON object")
        return {}
    return value
