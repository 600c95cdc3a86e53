"""A scripted gateway on a real port: each call of Generate plays the next script."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from tidegate.inference.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc, model_pb2
from tidegate.rpc.server import ErrorInterceptor
from tidegate.rpc.status import INFERENCE_DOMAIN, RpcError

Response = inference_service_pb2.GenerateResponse
Context = grpc.aio.ServicerContext[Any, Any]
HANG = "hang"
Script = Sequence[Response | RpcError | str]
"""Responses in order; an error ends the call; ``HANG`` waits until the call is cancelled."""


def answer(*pieces: str, reason: generation_pb2.FinishReason.ValueType = generation_pb2.FINISH_REASON_STOP) -> Script:
    """A complete answer of one token for each piece."""
    deltas = [
        Response(delta=generation_pb2.Delta(text=[piece], token_ids=[number])) for number, piece in enumerate(pieces)
    ]
    usage = generation_pb2.Usage(prompt_token_count=5, output_token_count=len(pieces), kv_block_count=1)
    return [
        Response(started=generation_pb2.Started(response_id="r1", model="fake", prompt_token_count=5)),
        *deltas,
        Response(finished=generation_pb2.Finished(reason=reason, usage=usage)),
    ]


def refusal(code: grpc.StatusCode, reason: str, *, retry_after_s: float | None = None) -> RpcError:
    """An error as the gateway would send it."""
    return RpcError(
        code=code, reason=reason, domain=INFERENCE_DOMAIN, message=f"{reason} said", retry_after_s=retry_after_s
    )


class _ScriptedError(Exception):
    def __init__(self, error: RpcError) -> None:
        super().__init__(error.reason)
        self.error = error


def _to_rpc(error: Exception) -> RpcError:
    if not isinstance(error, _ScriptedError):
        raise error
    return error.error


@dataclass
class FakeInference(inference_service_pb2_grpc.InferenceServiceServicer):
    """Plays ``scripts`` one after the other, the last one again and again; remembers what it was asked."""

    scripts: list[Script] = field(default_factory=lambda: [answer("Paris", ".")])
    models: list[str] = field(default_factory=lambda: ["fake"])
    page_size: int = 100
    requests: list[inference_service_pb2.GenerateRequest] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def Generate(
        self, request: inference_service_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[Response]:
        self.requests.append(request)
        self.called.set()
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        try:
            for step in script:
                if isinstance(step, RpcError):
                    raise _ScriptedError(step)
                if isinstance(step, str):
                    await asyncio.Event().wait()
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):  # wherever in the script the cancel arrives
            self.cancelled.set()
            raise

    async def Tokenize(
        self, request: inference_service_pb2.TokenizeRequest, context: Context
    ) -> inference_service_pb2.TokenizeResponse:
        text = "".join(message.content for message in request.chat.messages)
        return inference_service_pb2.TokenizeResponse(
            token_ids=[ord(character) for character in text],
            token_count=len(text),
            rendered_prompt=text,
            max_output_tokens=100,
        )

    async def GetModel(
        self, request: inference_service_pb2.GetModelRequest, context: Context
    ) -> inference_service_pb2.GetModelResponse:
        return inference_service_pb2.GetModelResponse(model=model_pb2.Model(name=request.name))

    async def ListModels(
        self, request: inference_service_pb2.ListModelsRequest, context: Context
    ) -> inference_service_pb2.ListModelsResponse:
        begin = int(request.page_token or 0)
        end = begin + self.page_size
        return inference_service_pb2.ListModelsResponse(
            models=[
                model_pb2.Model(name=name, limits=model_pb2.ModelLimits(context_length=2048, vocabulary_size=1000))
                for name in self.models[begin:end]
            ],
            next_page_token=str(end) if end < len(self.models) else "",
        )


@asynccontextmanager
async def serve(service: FakeInference, *, is_serving: bool = True) -> AsyncIterator[str]:
    """Serve ``service`` and its health; the target."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor(_to_rpc, logging.getLogger(__name__))])
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    states = health_pb2.HealthCheckResponse
    await health.set("", states.SERVING)
    await health.set("tidegate.inference.v1.InferenceService", states.SERVING if is_serving else states.NOT_SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
