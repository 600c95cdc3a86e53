"""Arguments of the ``tidegate`` command that need more than a type: what no message can hold is told before a call."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

_MAX_INT32, _MAX_INT64 = 2**31 - 1, 2**63 - 1
# Four months. gRPC takes a deadline that is beyond its clock for one that has passed.
_MAX_TIMEOUT_S = 1e7
# So many ids are about as large as a message may be.
_MAX_PROMPT_TOKENS = 2_000_000


def check_text(value: str | None) -> str | None:
    """``value``, unless it was no UTF-8: that comes as surrogates. Raises ``typer.BadParameter``."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("is not UTF-8") from None
    return value


def check_target(value: str) -> str:
    """``value``, unless it is empty; gRPC knows more forms than ours. Raises ``typer.BadParameter``."""
    if not value:
        raise typer.BadParameter("is empty; it has to be host:port")
    return check_text(value) or value


def check_listen(value: str) -> str:
    """``value``, if others can be told of it: host:port, and not the port 0. Raises ``typer.BadParameter``."""
    from tidegate.settings import check_address  # noqa: PLC0415 - takes a quarter of a second, for one command

    try:
        check_address(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not int(value.rpartition(":")[2]):
        raise typer.BadParameter("has to name a port")
    return value


def read_stdin() -> str:
    """All of it; nothing where it is closed. Raises ``typer.BadParameter``."""
    try:
        text = sys.stdin.read() if sys.stdin is not None else ""
        text.encode()  # some locales let anything pass
    except UnicodeError:
        raise typer.BadParameter("what stdin holds is not UTF-8") from None
    return text


Target = Annotated[
    str, typer.Option(envvar="TIDEGATE_TARGET", callback=check_target, help="Address of the gateway, host:port.")
]
Listen = Annotated[str, typer.Option(callback=check_listen, help="Where the gateway listens, host:port.")]
Model = Annotated[str | None, typer.Option(callback=check_text, help="Model to ask; the first one served by default.")]
System = Annotated[str | None, typer.Option(callback=check_text, help="System message.")]
MaxOutputTokens = Annotated[int | None, typer.Option(min=1, max=_MAX_INT32, help="The most tokens of an answer.")]
Seed = Annotated[int | None, typer.Option(min=-_MAX_INT64 - 1, max=_MAX_INT64, help="Makes sampling repeatable.")]
TimeoutSeconds = Annotated[float, typer.Option(min=0.1, max=_MAX_TIMEOUT_S, help="Seconds for one answer.")]
PromptTokens = Annotated[int, typer.Option(min=1, max=_MAX_PROMPT_TOKENS, help="Length of each prompt.")]
OutputTokens = Annotated[int, typer.Option(min=1, max=_MAX_INT32, help="Length of each answer.")]
