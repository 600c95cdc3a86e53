"""`tidegate chat`: one question from the command line or a pipe, or a conversation at a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import typer

from tidegate.client.answer import Answer, chat_request
from tidegate.client.client import Client
from tidegate.client.conversation import Conversation
from tidegate.client.errors import TidegateError
from tidegate.client.explain import ExitCode, exit_code
from tidegate.client.output import AnswerView
from tidegate.inference.v1 import inference_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """What the command line says. ``None`` leaves a choice to the server; no ``model`` takes the first one served."""

    target: str
    model: str | None
    system: str | None
    max_output_tokens: int | None
    temperature: float | None
    seed: int | None
    timeout_s: float


class Chat:
    """A connection, a model and a conversation."""

    def __init__(self, client: Client, model: str, options: ChatOptions, view: AnswerView) -> None:
        """Use ``choose_model`` for ``model``."""
        self.conversation = Conversation(options.system)
        self._client = client
        self._model = model
        self._options = options
        self._view = view

    async def answer(self, question: str) -> ExitCode:
        """Stream one answer. A failure is shown and returned; a cancellation leaves the partial answer standing."""
        self.conversation.ask(question)
        answer = Answer(self._view)
        try:
            stats = await answer.stream(self._client, self._request(), timeout_s=self._options.timeout_s)
        except TidegateError as error:
            self._view.fail(error)
            return exit_code(error)
        finally:
            self.conversation.settle(answer.text)
        self._view.summarise(stats)
        return ExitCode.OK

    def _request(self) -> inference_service_pb2.GenerateRequest:
        options = self._options
        return chat_request(
            self._model,
            self.conversation.messages,
            max_output_tokens=options.max_output_tokens,
            temperature=options.temperature,
            seed=options.seed,
        )


async def choose_model(client: Client, wanted: str | None) -> str:
    """``wanted``, or the first model that is served. An empty name when none is; the server then says why."""
    if wanted:
        return wanted
    models = await client.list_models()
    return models[0].name if models else ""


async def ask_once(options: ChatOptions, question: str, view: AnswerView) -> ExitCode:
    """Answer one question."""
    async with Client.connect(options.target) as client:
        try:
            model = await choose_model(client, options.model)
        except TidegateError as error:
            view.fail(error)
            return exit_code(error)
        return await Chat(client, model, options, view).answer(question)


def converse(options: ChatOptions, view: AnswerView, read: Callable[[str], str] = input) -> ExitCode:
    """Read, answer, repeat. Ctrl-C ends a running answer, on the worker too; at the prompt it leaves."""
    # One event loop for the whole conversation; it stands still while a line is read. Its `run` turns Ctrl-C into a
    # cancellation of the answer, and raises KeyboardInterrupt once that is cleaned up.
    with asyncio.Runner() as runner:
        client = runner.run(_connect(options.target))
        try:
            model = runner.run(choose_model(client, options.model))
            chat = Chat(client, model, options, view)
            _tell(f"{model} at {options.target}. /help lists commands; Ctrl-C stops an answer; Ctrl-D leaves.")
            while (line := _read_line(read)) is not None:
                if line.startswith("/"):
                    _tell(chat.conversation.command(line))
                elif line:
                    _answer(runner, chat, line)
        except TidegateError as error:
            view.fail(error)
            return exit_code(error)
        finally:
            runner.run(client.close())
    return ExitCode.OK


async def _connect(target: str) -> Client:
    return Client.connect(target)  # a channel belongs to the event loop in which it is made


def _read_line(read: Callable[[str], str]) -> str | None:
    """The next line, stripped; None to leave."""
    try:
        line = read("> ").strip()
    except (EOFError, KeyboardInterrupt):
        _tell("")
        return None
    return None if line in {"/exit", "/quit"} else line


def _answer(runner: asyncio.Runner, chat: Chat, question: str) -> None:
    try:
        runner.run(chat.answer(question))
    except KeyboardInterrupt:
        _tell("(stopped)")


def _tell(text: str) -> None:
    typer.echo(text, err=True)
