from __future__ import annotations

from tidegate.client.conversation import Conversation
from tidegate.inference.v1.chat_pb2 import CHAT_ROLE_ASSISTANT, CHAT_ROLE_SYSTEM, CHAT_ROLE_USER


def _told(conversation: Conversation) -> list[tuple[int, str]]:
    return [(message.role, message.content) for message in conversation.messages]


def test_questions_and_answers_alternate_behind_the_system_message() -> None:
    """The history that a server is given is what was said."""
    conversation = Conversation("Be brief.")
    conversation.ask("2+2?")
    conversation.settle("4")
    conversation.ask("And 3+3?")

    expected = [
        (CHAT_ROLE_SYSTEM, "Be brief."),
        (CHAT_ROLE_USER, "2+2?"),
        (CHAT_ROLE_ASSISTANT, "4"),
        (CHAT_ROLE_USER, "And 3+3?"),
    ]
    assert expected == _told(conversation)


def test_a_question_without_answer_is_taken_back() -> None:
    """Otherwise the next question would be the second user message in a row, which servers refuse."""
    conversation = Conversation(None)
    conversation.ask("2+2?")
    conversation.settle("")

    assert [] == _told(conversation)


def test_reset_keeps_the_system_message() -> None:
    """Only the conversation is forgotten."""
    conversation = Conversation("Be brief.")
    conversation.ask("2+2?")
    conversation.settle("4")
    conversation.command("/reset")

    assert [(CHAT_ROLE_SYSTEM, "Be brief.")] == _told(conversation)


def test_the_system_message_can_be_set_and_removed() -> None:
    """/system with text sets it, without text removes it."""
    conversation = Conversation(None)

    conversation.command("/system Speak French.")
    assert [(CHAT_ROLE_SYSTEM, "Speak French.")] == _told(conversation)
    conversation.command("/system")
    assert [] == _told(conversation)


def test_an_unknown_command_is_named() -> None:
    """A slip of the finger is not sent to the model."""
    assert "/rest" in Conversation(None).command("/rest")
