"""A conversation as chat templates see it: the dictionaries that transformers' ``apply_chat_template`` is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

# What JSON Schema itself says; templates branch on it, and none of it can spell a control token.
_SCHEMA_WORDS = frozenset(
    {"$defs", "$ref", "additionalProperties", "anyOf", "array", "boolean", "description", "enum", "integer", "items"}
    | {"null", "nullable", "number", "object", "properties", "required", "string", "title", "type"}
)

Spelling = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the assistant made."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(slots=True, kw_only=True, init=False)
class Message:
    """One message. ``role`` is "system", "user", "assistant" or "tool"."""

    role: str
    content: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    def __init__(
        self,
        *,
        role: str,
        content: str | None,
        tool_calls: tuple[ToolCall, ...] = (),
        tool_call_id: str = "",
        name: str = "",
    ) -> None:
        self.role = role
        self.content = content
        self.tool_calls = tool_calls
        self.tool_call_id = tool_call_id
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the model may call; ``parameters`` is a JSON Schema."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(slots=True, kw_only=True, init=False)
class Chat:
    """A valid conversation (gateway/chat_prompt.py)."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    def __init__(
        self,
        *,
        messages: tuple[Message, ...],
        tools: tuple[Tool, ...] = (),
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> None:
        self.messages = messages
        self.tools = tools
        self.add_generation_prompt = add_generation_prompt
        self.continue_final_message = continue_final_message


@dataclass(slots=True, kw_only=True, init=False)
class TemplateInput:
    """What a template is given of a chat. ``tools`` is None when there are none, as in transformers."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None

    def __init__(self, *, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> None:
        self.messages = messages
        self.tools = tools


class CallerText(NamedTuple):
    """A text that came from the caller, and its field; ``is_answer`` when the assistant is said to have written it."""

    field: str
    text: str
    is_answer: bool = False


def template_input(chat: Chat, spelling: Spelling = str, answer_spelling: Spelling | None = None) -> TemplateInput:
    """The chat as a template sees it, with every text that came from the caller put through ``spelling``.

    For the assistant's messages it is ``answer_spelling``, if given.
    """
    answers = answer_spelling or spelling
    return TemplateInput(
        messages=[_message(message, answers if message.role == "assistant" else spelling) for message in chat.messages],
        tools=[_tool(tool, spelling) for tool in chat.tools] or None,
    )


def plain_roles(chat: Chat) -> tuple[str, ...] | None:
    """The roles of a chat that is to be answered and has nothing but roles and contents; None for others."""
    if chat.tools or chat.continue_final_message:
        return None
    roles: list[str] = []
    for message in chat.messages:
        if message.content is None or message.tool_calls or message.tool_call_id or message.name:
            return None
        roles.append(message.role)
    return tuple(roles)


def form_of(chat: Chat, spelling: Spelling) -> tuple[object, ...]:
    """All that a template sees of the chat, as a key: equal for two chats whose texts ``spelling`` makes equal."""
    flags = (chat.add_generation_prompt, chat.continue_final_message)
    if chat.tools or any(message.tool_calls for message in chat.messages):
        return (*flags, repr(template_input(chat, spelling)))
    return (
        *flags,
        *[
            (
                message.role,
                None if message.content is None else spelling(message.content),
                spelling(message.tool_call_id) if message.tool_call_id else "",
                spelling(message.name) if message.name else "",
            )
            for message in chat.messages
        ],
    )


def caller_texts(chat: Chat) -> Iterator[CallerText]:
    """Every text that came from the caller."""
    for index, message in enumerate(chat.messages):
        path, is_answer = f"chat.messages[{index}]", message.role == "assistant"
        yield CallerText(f"{path}.content", message.content or "", is_answer)
        yield CallerText(f"{path}.tool_call_id", message.tool_call_id, is_answer)
        yield CallerText(f"{path}.name", message.name, is_answer)
        for at, call in enumerate(message.tool_calls):
            yield CallerText(f"{path}.tool_calls[{at}].id", call.id, is_answer)
            yield CallerText(f"{path}.tool_calls[{at}].name", call.name, is_answer)
            for text in _json_texts(call.arguments):
                yield CallerText(f"{path}.tool_calls[{at}].arguments_json", text, is_answer)
    for index, tool in enumerate(chat.tools):
        path = f"chat.tools[{index}]"
        yield CallerText(f"{path}.name", tool.name)
        yield CallerText(f"{path}.description", tool.description)
        for text in _json_texts(tool.parameters):
            yield CallerText(f"{path}.parameters_json_schema", text)


def _message(message: Message, spelling: Spelling) -> dict[str, Any]:
    """Keys are left out rather than empty, but for ``content``: templates ask ``is defined`` of the others."""
    view: dict[str, Any] = {
        "role": message.role,
        "content": None if message.content is None else spelling(message.content),
    }
    if message.tool_calls:
        view["tool_calls"] = [_tool_call(call, spelling) for call in message.tool_calls]
    if message.tool_call_id:
        view["tool_call_id"] = spelling(message.tool_call_id)
    if message.name:
        view["name"] = spelling(message.name)
    return view


def _tool_call(call: ToolCall, spelling: Spelling) -> dict[str, Any]:
    function = {"name": spelling(call.name), "arguments": _json_value(call.arguments, spelling)}
    view = {"type": "function", "function": function}
    return {"id": spelling(call.id), **view} if call.id else view


def _tool(tool: Tool, spelling: Spelling) -> dict[str, Any]:
    function: dict[str, Any] = {"name": spelling(tool.name)}
    if tool.description:
        function["description"] = spelling(tool.description)
    function["parameters"] = _json_value(tool.parameters, spelling, kept=_SCHEMA_WORDS)
    return {"type": "function", "function": function}


def _json_value(value: Any, spelling: Spelling, kept: frozenset[str] = frozenset()) -> Any:
    """A copy of ``value`` whose strings are put through ``spelling``. Its depth was limited when it was parsed."""
    if isinstance(value, str):
        return value if value in kept else spelling(value)
    if isinstance(value, list):
        return [_json_value(item, spelling, kept) for item in value]
    if not isinstance(value, dict):
        return value
    view: dict[str, Any] = {}
    copies: dict[str, int] = {}
    for name, item in value.items():
        spelled = name if name in kept else spelling(name)
        while spelled in view:  # two names that are spelled alike stay two
            copies[spelled] = copies.get(spelled, 0) + 1
            spelled += spelling(str(copies[spelled]))
        view[spelled] = _json_value(item, spelling, kept)
    return view


def _json_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _json_texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _json_texts(item)
