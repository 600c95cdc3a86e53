"""The messages of a chat at a terminal, and the rules by which they grow."""

from __future__ import annotations

from tidegate.inference.v1 import chat_pb2

_HELP = """\
/system TEXT   set the system message (without TEXT: remove it)
/reset         forget the conversation
/exit          leave (also Ctrl-D)
Ctrl-C stops a running answer; at the prompt it leaves."""


class Conversation:
    """The messages so far. Questions and answers alternate: servers refuse two user messages in a row."""

    def __init__(self, system: str | None) -> None:
        """Begin with nothing but an optional system message."""
        self._system = system
        self._messages: list[chat_pb2.ChatMessage] = []

    @property
    def messages(self) -> list[chat_pb2.ChatMessage]:
        """All messages, the system message first."""
        if self._system is None:
            return list(self._messages)
        return [chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_SYSTEM, content=self._system), *self._messages]

    def ask(self, question: str) -> None:
        """Add the person's question."""
        self._messages.append(chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_USER, content=question))

    def settle(self, answer: str) -> None:
        """Add what came of the answer, or take the question back when nothing came: two in a row are refused."""
        if answer:
            self._messages.append(chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_ASSISTANT, content=answer))
        else:
            self._messages.pop()

    def command(self, line: str) -> str:
        """Obey ``/help``, ``/reset`` or ``/system``; what to tell the person."""
        name, _, argument = line.partition(" ")
        match name:
            case "/help":
                return _HELP
            case "/reset":
                self._messages.clear()
                return "The conversation is forgotten."
            case "/system":
                self._system = argument.strip() or None
                return "The system message is set." if self._system else "The system message is removed."
            case _:
                return f"There is no {name}. /help lists what there is."
