"""`tidegate models` and `tidegate tokenize`: what is served, and what a prompt becomes."""

from __future__ import annotations

import json

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from tidegate.client.chat import choose_model
from tidegate.client.client import Client
from tidegate.client.conversation import Conversation
from tidegate.inference.v1 import chat_pb2, inference_service_pb2, model_pb2


async def print_models(target: str, *, json_lines: bool) -> None:
    """Print every model. Raises ``TidegateError``."""
    async with Client.connect(target) as client:
        models = await client.list_models()
    if json_lines:
        for model in models:
            _print_json(model)
    else:
        Console().print(_table(models))


async def print_tokens(target: str, model: str | None, question: str, *, system: str | None, json_lines: bool) -> None:
    """Print a question as the model would see it. Raises ``TidegateError``."""
    conversation = Conversation(system)
    conversation.ask(question)
    async with Client.connect(target) as client:
        request = inference_service_pb2.TokenizeRequest(
            model=await choose_model(client, model), chat=chat_pb2.ChatPrompt(messages=conversation.messages)
        )
        response = await client.tokenize(request)
    if json_lines:
        _print_json(response)
        return
    typer.echo(response.rendered_prompt)
    typer.echo(" ".join(map(str, response.token_ids)))
    typer.echo(f"{response.token_count} tokens; room for {response.max_output_tokens} more", err=True)


def _table(models: list[model_pb2.Model]) -> Table:
    table = Table("model", "context", "most output", "KV pool", "checkpoint", "constraints")
    for model in models:
        limits = model.limits
        kinds = (model_pb2.ConstraintKind.Name(kind) for kind in model.capabilities.constraint_kinds)
        table.add_row(
            model.name,
            str(limits.context_length),
            str(limits.max_output_tokens),
            str(limits.kv_pool_token_count),
            model.digests.checkpoint_sha256[:12],
            ", ".join(kind.removeprefix("CONSTRAINT_KIND_").lower() for kind in kinds),
        )
    return table


def _print_json(message: Message) -> None:
    typer.echo(json.dumps(MessageToDict(message, preserving_proto_field_name=True), ensure_ascii=False))
