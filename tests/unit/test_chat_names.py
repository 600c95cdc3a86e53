from __future__ import annotations

import time
from itertools import islice, product
from typing import Any

import pytest

from gateway.chat import Chat, Message, Tool, template_input
from gateway.control_tokens import ControlTokens

_BLANKS = "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u3000"


def _silenced(parameters: dict[str, Any]) -> dict[str, Any]:
    tool = Tool(name="f", description="", parameters=parameters)
    chat = Chat(messages=(Message(role="user", content="Hi"),), tools=(tool,))
    tools = template_input(chat, ControlTokens(["<s>"], []).silencer()).tools or []
    shown: dict[str, Any] = tools[0]["function"]["parameters"]
    return shown


@pytest.mark.parametrize("before", [" " * 16, ""])
@pytest.mark.parametrize("behind", ["", " x"])
def test_names_that_are_spelled_alike_stay_as_many(before: str, behind: str) -> None:
    """Thousands that differ in what means nothing: they took time by the cube of their number, hours for a prompt."""
    names = [f"{before}{''.join(blanks)}{behind}" for blanks in islice(product(_BLANKS, repeat=4), 4000)]
    start = time.thread_time()
    assert 4000 == len(_silenced(dict.fromkeys(names, 1)))
    assert time.thread_time() - start < 0.5


def test_more_names_than_there_are_marks_stay_as_many() -> None:
    """There are some 6,400 characters of which texts without meaning are made."""
    assert 20_000 == len(_silenced({str(number): 1 for number in range(20_000)}))
