"""The reference for rendering: transformers' ``apply_chat_template``.

The mapping from ``ChatPrompt`` to a template's variables is written again here: the gateway's own could prove nothing.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from tidegate.inference.v1 import chat_pb2

_ROLES = {
    chat_pb2.CHAT_ROLE_SYSTEM: "system",
    chat_pb2.CHAT_ROLE_USER: "user",
    chat_pb2.CHAT_ROLE_ASSISTANT: "assistant",
    chat_pb2.CHAT_ROLE_TOOL: "tool",
}


def reference_rendering(
    tokenizer: PreTrainedTokenizerFast, prompt: chat_pb2.ChatPrompt, *, now: datetime
) -> tuple[str, list[int]] | None:
    """The text and the token ids; None for a rejection. ``now`` is the date that templates see."""
    adds_prompt = prompt.add_generation_prompt if prompt.HasField("add_generation_prompt") else True
    options: dict[str, Any] = {
        "tools": [_tool(tool) for tool in prompt.tools] or None,
        "add_generation_prompt": adds_prompt and not prompt.continue_final_message,
        "continue_final_message": prompt.continue_final_message,
        "strftime_now": now.strftime,
    }
    messages = [_message(message) for message in prompt.messages]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
    except (TemplateError, TypeError, ValueError):
        return None
    return text, ids


def _tool(tool: chat_pb2.ToolDefinition) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = json.loads(tool.parameters_json_schema)
    return {"type": "function", "function": function}


def _message(message: chat_pb2.ChatMessage) -> dict[str, Any]:
    view: dict[str, Any] = {
        "role": _ROLES[message.role],
        "content": message.content if message.HasField("content") else None,
    }
    if message.tool_calls:
        view["tool_calls"] = [
            {"id": call.id, "type": "function"}
            | {"function": {"name": call.name, "arguments": json.loads(call.arguments_json)}}
            for call in message.tool_calls
        ]
    if message.role == chat_pb2.CHAT_ROLE_TOOL:
        view |= {"tool_call_id": message.tool_call_id, "name": message.name}
    return view
