"""Requests that are refused, each for one thing, and what their client is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from grpc import StatusCode

from gateway.model import ServedModel
from tests.fakes.served_models import served_model
from tidegate.inference.v1 import chat_pb2
from tidegate.inference.v1.inference_service_pb2 import GenerateRequest

USER = 'messages { role: CHAT_ROLE_USER content: "Hi" }'
_CALL = 'tool_calls { id: "c1" name: "f" }'
_CALLS = 'tool_calls { name: "f" } ' * 129
_ASKED = f"{USER} messages {{ role: CHAT_ROLE_ASSISTANT {_CALL} }}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A request as text (and, where text would be long, a change to it), and what has to come of it."""

    text: str = ""
    prompt: str = f"chat {{ {USER} }}"
    change: Callable[[GenerateRequest], object] = lambda request: None
    reason: str = "INVALID_REQUEST"
    code: StatusCode = StatusCode.INVALID_ARGUMENT
    fields: tuple[str, ...] = ()
    model: ServedModel | None = None


def _chat(text: str) -> str:
    return f"chat {{ {text} }}"


def _constraint(kind: str, value: str) -> Callable[[GenerateRequest], object]:
    return lambda request: setattr(request.constraint, kind, value)


def _nested(depth: int) -> str:
    return '{"type": "array", "items": ' * depth + "true" + "}" * depth


BAD_REQUESTS: dict[str, Row] = {
    # The model and the prompt as a whole.
    "no model": Row(change=lambda r: r.ClearField("model"), fields=("model",)),
    "unknown model": Row(
        change=lambda r: setattr(r, "model", "other"), reason="MODEL_NOT_FOUND", code=StatusCode.NOT_FOUND
    ),
    "huge model name": Row(
        change=lambda r: setattr(r, "model", "x" * 100_000), reason="MODEL_NOT_FOUND", code=StatusCode.NOT_FOUND
    ),
    "no prompt": Row(prompt="", fields=("prompt",)),
    "empty text": Row(prompt='text: ""', fields=("text",)),
    "oversize text": Row(prompt="", change=lambda r: setattr(r, "text", "é" * 600_000), fields=("text",)),
    "text with a noncharacter": Row(prompt='text: "a\\uFDD0b"', fields=("text",)),
    "no ids": Row(prompt="token_ids {}", fields=("token_ids.ids",)),
    "negative id": Row(prompt="token_ids { ids: 1 ids: -1 }", fields=("token_ids.ids[1]",)),
    "ids beyond the vocabulary": Row(
        prompt="token_ids { ids: 703 ids: 1 ids: 2147483647 }", fields=("token_ids.ids[0]", "token_ids.ids[2]")
    ),
    # Conversations.
    "no messages": Row(prompt="chat {}", fields=("chat.messages",)),
    "too many messages": Row(
        change=lambda r: r.chat.messages.extend(
            chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_ASSISTANT, content="") for _ in range(4096)
        ),
        fields=("chat.messages",),
    ),
    "oversize chat": Row(
        change=lambda r: r.chat.messages.add(role=chat_pb2.CHAT_ROLE_ASSISTANT, content="x" * (1 << 20)),
        fields=("chat",),
    ),
    "no role": Row(prompt=_chat('messages { content: "Hi" }'), fields=("chat.messages[0].role",)),
    "unknown role": Row(prompt=_chat(f"{USER} messages {{ role: 9 content: '' }}"), fields=("chat.messages[1].role",)),
    "no content": Row(prompt=_chat("messages { role: CHAT_ROLE_USER }"), fields=("chat.messages[0].content",)),
    "assistant without content or calls": Row(
        prompt=_chat(f"{USER} messages {{ role: CHAT_ROLE_ASSISTANT }}"), fields=("chat.messages[1].content",)
    ),
    "two user messages": Row(prompt=_chat(f"{USER} {USER}"), fields=("chat.messages[1].role",)),
    "two system messages": Row(
        prompt=_chat("messages { role: CHAT_ROLE_SYSTEM content: '' } messages { role: CHAT_ROLE_SYSTEM content: '' }"),
        fields=("chat.messages[1].role",),
    ),
    "late system message": Row(
        prompt=_chat(f"{USER} messages {{ role: CHAT_ROLE_SYSTEM content: 'x' }}"), fields=("chat.messages[1].role",)
    ),
    "tool message first": Row(
        prompt=_chat("messages { role: CHAT_ROLE_TOOL content: 'x' }"), fields=("chat.messages[0].role",)
    ),
    "tool message without a call": Row(
        prompt=_chat(f"{USER} messages {{ role: CHAT_ROLE_TOOL content: 'x' }}"), fields=("chat.messages[1].role",)
    ),
    "tool message answers nothing": Row(
        prompt=_chat(f"{_ASKED} messages {{ role: CHAT_ROLE_TOOL content: 'x' tool_call_id: 'c2' }}"),
        fields=("chat.messages[2].tool_call_id",),
    ),
    "tool message without the id": Row(
        prompt=_chat(f"{_ASKED} messages {{ role: CHAT_ROLE_TOOL content: 'x' }}"),
        fields=("chat.messages[2].tool_call_id",),
    ),
    "call answered twice": Row(
        prompt=_chat(f"{_ASKED} " + "messages { role: CHAT_ROLE_TOOL content: 'x' tool_call_id: 'c1' } " * 2),
        fields=("chat.messages[3].role",),
    ),
    "tool fields in a user message": Row(
        prompt=_chat(f"messages {{ role: CHAT_ROLE_USER content: '' tool_call_id: 'c' name: 'n' {_CALL} }}"),
        fields=("chat.messages[0].tool_calls", "chat.messages[0].tool_call_id", "chat.messages[0].name"),
    ),
    "two calls of one id": Row(
        prompt=_chat(f"{USER} messages {{ role: CHAT_ROLE_ASSISTANT {_CALL} {_CALL} }}"),
        fields=("chat.messages[1].tool_calls[1].id",),
    ),
    "call without a name": Row(
        prompt=_chat(f"{USER} messages {{ role: CHAT_ROLE_ASSISTANT tool_calls {{ id: 'c' }} }}"),
        fields=("chat.messages[1].tool_calls[0].name",),
    ),
    "long call id": Row(
        prompt=_chat(f"{USER} messages {{ role: CHAT_ROLE_ASSISTANT tool_calls {{ id: '{'x' * 257}' name: 'f' }} }}"),
        fields=("chat.messages[1].tool_calls[0].id",),
    ),
    "too many calls": Row(
        prompt=_chat(f"{USER} messages {{ role: CHAT_ROLE_ASSISTANT {_CALLS} }}"),
        fields=("chat.messages[1].tool_calls",),
    ),
    **{
        f"arguments {name}": Row(
            prompt=_chat(_ASKED),
            change=lambda r, arguments=arguments: setattr(  # type: ignore[misc]
                r.chat.messages[1].tool_calls[0], "arguments_json", arguments
            ),
            fields=("chat.messages[1].tool_calls[0].arguments_json",),
        )
        for name, arguments in {
            "not JSON": "{city: Paris}",
            "no object": "[1]",
            "NaN": '{"x": NaN}',
            "infinite": '{"x": 1e999}',
            "twice": '{"x": 1, "x": 2}',
            "half a surrogate pair": '{"x": "\\ud800"}',
            "deep": '{"x": ' + "[" * 40 + "]" * 40 + "}",
            "deeper than the stack": "[" * 100_000,
            "an endless integer": '{"x": ' + "9" * 5000 + "}",
        }.items()
    },
    "too many tools": Row(
        change=lambda r: r.chat.tools.extend(chat_pb2.ToolDefinition(name=f"t{i}") for i in range(129)),
        fields=("chat.tools",),
    ),
    "two tools of one name": Row(
        prompt=_chat(f"{USER} tools {{ name: 'f' }} tools {{ name: 'f' }}"), fields=("chat.tools[1].name",)
    ),
    "bad tool names": Row(
        prompt=_chat(f"{USER} tools {{ }} tools {{ name: 'a b' }} tools {{ name: '{'x' * 65}' }}"),
        fields=("chat.tools[0].name", "chat.tools[1].name", "chat.tools[2].name"),
    ),
    "tool schema no JSON": Row(
        prompt=_chat(f"{USER} tools {{ name: 'f' parameters_json_schema: 'string' }}"),
        fields=("chat.tools[0].parameters_json_schema",),
    ),
    "generation prompt and continuation": Row(
        prompt=_chat(
            f"{USER} messages {{ role: CHAT_ROLE_ASSISTANT content: 'A' }}"
            " add_generation_prompt: true continue_final_message: true"
        ),
        fields=("chat.continue_final_message",),
    ),
    "continuation of a user": Row(
        prompt=_chat(f"{USER} continue_final_message: true"), fields=("chat.continue_final_message",)
    ),
    "continuation of a call": Row(
        prompt=_chat(f"{_ASKED} continue_final_message: true"), fields=("chat.continue_final_message",)
    ),
    # What the template does not take.
    "tools for a template without": Row(
        prompt=_chat(f"{USER} tools {{ name: 'f' }}"), reason="CHAT_TEMPLATE_REJECTED", fields=("chat.tools",)
    ),
    "calls for a template without": Row(
        prompt=_chat(_ASKED), reason="CHAT_TEMPLATE_REJECTED", fields=("chat.messages[1].tool_calls",)
    ),
    "system message for Gemma": Row(
        prompt=_chat(f"messages {{ role: CHAT_ROLE_SYSTEM content: 'Be brief.' }} {USER}"),
        reason="CHAT_TEMPLATE_REJECTED",
        fields=("chat",),
        model=served_model("gemma"),
    ),
    "assistant first for Mistral": Row(
        prompt=_chat("messages { role: CHAT_ROLE_ASSISTANT content: 'A' }"),
        reason="CHAT_TEMPLATE_REJECTED",
        fields=("chat",),
        model=served_model("mistral"),
    ),
    "noncharacter beside a control token": Row(
        prompt=_chat("messages { role: CHAT_ROLE_USER content: '<|im_end|>\\uFDD1' }"),
        reason="CHAT_TEMPLATE_REJECTED",
        fields=("chat.messages[0].content",),
    ),
    # Sampling.
    "no output": Row(text="sampling { max_output_tokens: 0 }", fields=("sampling.max_output_tokens",)),
    "negative output": Row(text="sampling { max_output_tokens: -1 }", fields=("sampling.max_output_tokens",)),
    "more output than the model has": Row(
        text="sampling { max_output_tokens: 257 }", fields=("sampling.max_output_tokens",)
    ),
    "min above max": Row(
        text="sampling { max_output_tokens: 4 min_output_tokens: 5 }", fields=("sampling.min_output_tokens",)
    ),
    "min above the model's": Row(text="sampling { min_output_tokens: 257 }", fields=("sampling.min_output_tokens",)),
    "negative min": Row(text="sampling { min_output_tokens: -1 }", fields=("sampling.min_output_tokens",)),
    "everything NaN": Row(
        text="sampling { temperature: nan top_p: nan min_p: nan presence_penalty: nan frequency_penalty: nan"
        " repetition_penalty: nan logit_bias { key: 1 value: nan } }",
        fields=(
            *("sampling.temperature", "sampling.top_p", "sampling.min_p", "sampling.presence_penalty"),
            *("sampling.frequency_penalty", "sampling.repetition_penalty", "sampling.logit_bias[1]"),
        ),
    ),
    "everything infinite": Row(
        text="sampling { temperature: inf top_p: inf min_p: -inf presence_penalty: inf frequency_penalty: -inf"
        " repetition_penalty: inf logit_bias { key: 1 value: -inf } }",
        fields=(
            *("sampling.temperature", "sampling.top_p", "sampling.min_p", "sampling.presence_penalty"),
            *("sampling.frequency_penalty", "sampling.repetition_penalty", "sampling.logit_bias[1]"),
        ),
    ),
    "hot": Row(text="sampling { temperature: 2.0001 }", fields=("sampling.temperature",)),
    "cold": Row(text="sampling { temperature: -0.1 }", fields=("sampling.temperature",)),
    "empty nucleus": Row(text="sampling { top_p: 0 }", fields=("sampling.top_p",)),
    "wide nucleus": Row(text="sampling { top_p: 1.01 }", fields=("sampling.top_p",)),
    "negative top_k": Row(text="sampling { top_k: -1 }", fields=("sampling.top_k",)),
    "large top_k": Row(text="sampling { top_k: 1025 }", fields=("sampling.top_k",)),
    "min_p above 1": Row(text="sampling { min_p: 1.5 }", fields=("sampling.min_p",)),
    "penalties": Row(
        text="sampling { presence_penalty: 2.5 frequency_penalty: -2.5 repetition_penalty: 0 }",
        fields=("sampling.presence_penalty", "sampling.frequency_penalty", "sampling.repetition_penalty"),
    ),
    "seed": Row(text="sampling { seed: 0 }", fields=("sampling.seed",)),
    "too many stop strings": Row(
        change=lambda r: r.sampling.stop_strings.extend(["x"] * 1_000_000), fields=("sampling.stop_strings",)
    ),
    "empty and long stop strings": Row(
        change=lambda r: r.sampling.stop_strings.extend(["", "ok", "x" * 257]),
        fields=("sampling.stop_strings[0]", "sampling.stop_strings[2]"),
    ),
    "too many stop ids": Row(
        change=lambda r: r.sampling.stop_token_ids.extend([1] * 65), fields=("sampling.stop_token_ids",)
    ),
    "stop ids beyond the vocabulary": Row(
        text="sampling { stop_token_ids: 703 stop_token_ids: -1 }",
        fields=("sampling.stop_token_ids[0]", "sampling.stop_token_ids[1]"),
    ),
    "too many biases": Row(
        change=lambda r: r.sampling.logit_bias.update(dict.fromkeys(range(301), 0.0)), fields=("sampling.logit_bias",)
    ),
    "biases beyond the vocabulary and the range": Row(
        text="sampling { logit_bias { key: -1 value: 0 } logit_bias { key: 703 value: 0 }"
        " logit_bias { key: 5 value: 100.5 } }",
        fields=("sampling.logit_bias[-1]", "sampling.logit_bias[5]", "sampling.logit_bias[703]"),
    ),
    # Constraints.
    "constraint without a kind": Row(text="constraint {}", fields=("constraint",)),
    "unsupported kind": Row(change=_constraint("grammar", 'root ::= "a"'), fields=("constraint.grammar",)),
    "grammar without a root": Row(
        change=_constraint("grammar", 'start: "a"'),
        fields=("constraint.grammar",),
        model=served_model(constraint_kinds=frozenset({4})),
    ),
    "long grammar": Row(
        change=_constraint("grammar", "root ::= " + '"a" ' * 20_000),
        fields=("constraint.grammar",),
        model=served_model(constraint_kinds=frozenset({4})),
    ),
    "schema no JSON": Row(change=_constraint("json_schema", "{type: object}"), fields=("constraint.json_schema",)),
    "schema no object": Row(change=_constraint("json_schema", "true"), fields=("constraint.json_schema",)),
    "schema of depth 100": Row(change=_constraint("json_schema", _nested(100)), fields=("constraint.json_schema",)),
    "long schema": Row(
        change=_constraint("json_schema", '{"enum": ["' + "x" * 65_536 + '"]}'), fields=("constraint.json_schema",)
    ),
    "remote reference": Row(
        change=_constraint("json_schema", '{"$ref": "https://example.com/schema.json"}'),
        fields=("constraint.json_schema",),
    ),
    "recursive reference": Row(
        change=_constraint("json_schema", '{"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}'),
        fields=("constraint.json_schema",),
    ),
    "unsupported keywords": Row(
        change=_constraint("json_schema", '{"type": "array", "items": {}, "uniqueItems": true, "not": {}}'),
        fields=("constraint.json_schema", "constraint.json_schema"),
    ),
    "hostile pattern in a schema": Row(
        change=_constraint("json_schema", '{"type": "string", "pattern": "((a{1,100}){1,100}){1,100}"}'),
        fields=("constraint.json_schema",),
    ),
    "regex no expression": Row(change=_constraint("regex", "(a"), fields=("constraint.regex",)),
    "regex with lookahead": Row(change=_constraint("regex", "(?=a)a"), fields=("constraint.regex",)),
    "regex with backreference": Row(change=_constraint("regex", r"(a)\1"), fields=("constraint.regex",)),
    "regex of exploding size": Row(
        change=_constraint("regex", "((a{1,100}){1,100}){1,100}"), fields=("constraint.regex",)
    ),
    "long regex": Row(change=_constraint("regex", "a" * 4097), fields=("constraint.regex",)),
    "no choices": Row(text="constraint { choice {} }", fields=("constraint.choice.choices",)),
    "bad choices": Row(
        change=lambda r: r.constraint.choice.choices.extend(["a", "", "a", "x" * 4097]),
        fields=tuple(f"constraint.choice.choices[{index}]" for index in (1, 2, 3)),
    ),
    "too many choices": Row(
        change=lambda r: r.constraint.choice.choices.extend(map(str, range(1025))),
        fields=("constraint.choice.choices",),
    ),
    "stops and a minimum beside a constraint": Row(
        text="constraint { json_object {} } sampling { min_output_tokens: 5 stop_strings: '}' stop_token_ids: 1 }",
        fields=("sampling.min_output_tokens", "sampling.stop_strings", "sampling.stop_token_ids"),
    ),
    # The rest.
    "unknown criticality": Row(text="criticality: 99", fields=("criticality",)),
    "unknown deadline policy": Row(text="short_deadline_policy: 99", fields=("short_deadline_policy",)),
    "log probabilities": Row(
        text="output { logprobs: 21 prompt_logprobs: -1 }", fields=("output.logprobs", "output.prompt_logprobs")
    ),
    "everything at once": Row(
        prompt=_chat(f"{USER} {USER}"),
        text="sampling { temperature: 3 top_p: 0 } constraint {} criticality: 99 output { logprobs: 99 }",
        fields=(
            *("chat.messages[1].role", "sampling.temperature", "sampling.top_p", "constraint", "criticality"),
            "output.logprobs",
        ),
    ),
    # What does not fit.
    "prompt beyond the context": Row(
        prompt="token_ids {}",
        change=lambda r: r.token_ids.ids.extend([1] * 512),
        reason="CONTEXT_LENGTH_EXCEEDED",
        fields=("token_ids",),
    ),
    "prompt beyond the context, of what are no ids": Row(
        prompt="token_ids {}",
        change=lambda r: r.token_ids.ids.extend([*[1] * 600, -1, 703]),
        fields=("token_ids.ids[600]", "token_ids.ids[601]"),
    ),
    "output beyond the context": Row(
        prompt="token_ids {}",
        text="sampling { max_output_tokens: 13 }",
        change=lambda r: r.token_ids.ids.extend([1] * 500),
        reason="CONTEXT_LENGTH_EXCEEDED",
        fields=("sampling.max_output_tokens",),
    ),
    "prompt beyond the KV pool": Row(
        prompt="token_ids {}",
        change=lambda r: r.token_ids.ids.extend([1] * 448),
        reason="KV_POOL_EXCEEDED",
        fields=("token_ids",),
    ),
    "output beyond the KV pool": Row(
        prompt="token_ids {}",
        text="sampling { max_output_tokens: 49 }",
        change=lambda r: r.token_ids.ids.extend([1] * 400),
        reason="KV_POOL_EXCEEDED",
        fields=("sampling.max_output_tokens",),
    ),
}
