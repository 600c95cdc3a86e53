"""``tidegate.inference.v1.InferenceService``: each method takes a call through its stages.

Exceptions leave here as they are; the error interceptor turns them into a status.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import grpc.aio

from gateway.admission import Admission
from gateway.call import Call
from gateway.carriers import GrpcCarrier
from gateway.catalogue import describe, list_models
from gateway.generation import Generation
from gateway.model import ServedModel
from gateway.policy.outcomes import no_worker_available
from gateway.preparation import Preparation
from gateway.request import find_model
from gateway.tokenization import tokenize
from gateway.workers.fleet import Fleet
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]

_SERVICE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name


class InferenceService(inference_service_pb2_grpc.InferenceServiceServicer):
    """The public API."""

    def __init__(  # noqa: PLR0913 - the stages and their limits
        self,
        fleet: Fleet,
        admission: Admission,
        preparation: Preparation,
        generation: Generation,
        *,
        max_duration_s: float,
        max_stall_s: float,
    ) -> None:
        """``max_duration_s`` holds for calls that have no shorter deadline; see ``GrpcCarrier`` for ``max_stall_s``."""
        self._fleet = fleet
        self._admission = admission
        self._preparation = preparation
        self._generation = generation
        self._max_duration_s = max_duration_s
        self._max_stall_s = max_stall_s

    async def Generate(self, request: bytes, context: _Context) -> None:  # type: ignore[override]
        """Stream the continuation of a prompt. Messages are serialised here, both ways."""
        call = self._call(context)
        await self._generation.run(request, call, GrpcCarrier(context, max_stall_s=self._max_stall_s))

    async def Tokenize(
        self, request: inference_service_pb2.TokenizeRequest, context: _Context
    ) -> inference_service_pb2.TokenizeResponse:
        """Render and tokenise a prompt without running it."""
        call = self._call(context)
        with self._admission.admit():
            return await self._preparation.run(
                partial(tokenize, request, self._models()),
                size_bytes=request.ByteSize(),
                deadline_at=call.deadline_at,
            )

    async def ListModels(
        self, request: inference_service_pb2.ListModelsRequest, context: _Context
    ) -> inference_service_pb2.ListModelsResponse:
        """List the models."""
        return list_models(request, self._fleet.models)

    async def GetModel(
        self, request: inference_service_pb2.GetModelRequest, context: _Context
    ) -> inference_service_pb2.GetModelResponse:
        """Describe one model."""
        return inference_service_pb2.GetModelResponse(model=describe(find_model(request.name, self._models())))

    def _call(self, context: _Context) -> Call:
        metadata: Any = context.invocation_metadata() or ()  # its values are text or bytes, whatever grpc's types say
        return Call.begin(metadata, client_s=context.time_remaining(), max_duration_s=self._max_duration_s)

    def _models(self) -> Mapping[str, ServedModel]:
        """The models known. Before any worker was seen nothing can be said of a name: raises ``NoWorkerAvailable``."""
        models = self._fleet.models
        if not models:
            raise no_worker_available()
        return models


def add_to_server(service: InferenceService, server: grpc.aio.Server) -> None:
    """Serve all methods on a grpc.aio server, Generate without parsing its messages."""
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)
    generate: Any = service.Generate  # grpc's types know the blocking form of a handler only
    server.add_registered_method_handlers(_SERVICE, {"Generate": grpc.unary_stream_rpc_method_handler(generate)})
