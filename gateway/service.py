"""``tidegate.inference.v1.InferenceService``: each method takes a call through its stages.

Exceptions leave here as they are; the error interceptor turns them into a status.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc.aio

from gateway.admission import Admission
from gateway.call import Call
from gateway.catalogue import describe, list_models
from gateway.dispatch import Dispatch
from gateway.jobs import PreparedRequest
from gateway.model import ServedModel
from gateway.policy.outcomes import no_worker_available
from gateway.preparation import Preparation
from gateway.request import find_model
from gateway.tokenization import tokenize
from gateway.traffic_sketches import TrafficSketches
from gateway.workers.fleet import Fleet
from tidegate.inference.v1 import inference_service_pb2, inference_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService(inference_service_pb2_grpc.InferenceServiceServicer):
    """The public API."""

    def __init__(  # noqa: PLR0913 - the stages of a call
        self,
        fleet: Fleet,
        admission: Admission,
        preparation: Preparation,
        dispatch: Dispatch,
        traffic: TrafficSketches,
        *,
        max_duration_s: float,
    ) -> None:
        """``max_duration_s`` holds for calls that have no shorter deadline."""
        self._fleet = fleet
        self._admission = admission
        self._preparation = preparation
        self._dispatch = dispatch
        self._traffic = traffic
        self._max_duration_s = max_duration_s

    async def Generate(
        self, request: inference_service_pb2.GenerateRequest, context: _Context
    ) -> AsyncGenerator[inference_service_pb2.GenerateResponse]:
        """Stream the continuation of a prompt."""
        call = Call.from_context(context, max_duration_s=self._max_duration_s)
        async with self._admission.admit():
            prepared = await self._preparation.run(
                partial(PreparedRequest.from_public, request, self._models(), response_id=call.response_id),
                size_bytes=request.ByteSize(),
                deadline_at=call.deadline_at,
            )
            self._traffic.note(prepared)
            async with aclosing(self._dispatch.generate(prepared, call)) as responses:
                async for response in responses:
                    yield response

    async def Tokenize(
        self, request: inference_service_pb2.TokenizeRequest, context: _Context
    ) -> inference_service_pb2.TokenizeResponse:
        """Render and tokenise a prompt without running it."""
        call = Call.from_context(context, max_duration_s=self._max_duration_s)
        async with self._admission.admit():
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

    def _models(self) -> Mapping[str, ServedModel]:
        """The models known. Before any worker was seen nothing can be said of a name: raises ``NoWorkerAvailable``."""
        models = self._fleet.models
        if not models:
            raise no_worker_available()
        return models
