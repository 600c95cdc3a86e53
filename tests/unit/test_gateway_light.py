from __future__ import annotations

import pytest

from gateway.jobs import light
from tidegate.inference.v1 import chat_pb2, generation_pb2
from tidegate.inference.v1.inference_service_pb2 import GenerateRequest

_USER, _ASSISTANT = chat_pb2.CHAT_ROLE_USER, chat_pb2.CHAT_ROLE_ASSISTANT


def _said(messages: int, *, calls: int = 0, tools: int = 0) -> GenerateRequest:
    request = GenerateRequest(model="m")
    request.chat.messages.add(role=_USER, content="Hi")
    for _ in range(messages - 1):
        request.chat.messages.add(role=_ASSISTANT, content="")
    for number in range(calls):
        request.chat.messages[-1].tool_calls.add(name=str(number))
    for number in range(tools):
        request.chat.tools.add(name=str(number))
    return request


@pytest.mark.parametrize("request_", [GenerateRequest(text="Hi"), _said(1), _said(20, calls=6, tools=6)])
def test_a_small_request_is_light(request_: GenerateRequest) -> None:
    """It is prepared where it is read."""
    assert request_ == light(request_.SerializeToString())


@pytest.mark.parametrize(
    "request_",
    [
        GenerateRequest(text="a" * 4096),
        GenerateRequest(text="Hi", constraint=generation_pb2.OutputConstraint(regex="a")),
        _said(300),
        _said(2, calls=100),
        _said(2, tools=100),
    ],
    ids=["long", "constrained", "messages", "calls", "tools"],
)
def test_what_takes_longer_is_not(request_: GenerateRequest) -> None:
    """In 2 KiB there is room for 338 messages, for which a template takes 17 ms: sixteen such held up all streams."""
    assert light(request_.SerializeToString()) is None
