"""``tidegate.worker.v1.WorkerService``: the edge between gRPC and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any

import grpc.aio

from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.rpc.lifecycle import Lifecycle
from tidegate.rpc.metadata import FINISHED_BIN, LOAD_SAMPLE
from tidegate.rpc.running_calls import RunningCalls
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc
from worker.engine import EngineDeadError
from worker.errors import CheckpointMismatchError, DeadlineExceededError
from worker.generation import Generation, SendResponses
from worker.health import Health
from worker.job import parse_job

_Context = grpc.aio.ServicerContext[Any, Any]

_PIECE_BYTES = 2**20


class WorkerService(worker_service_pb2_grpc.WorkerServiceServicer):
    """One method per RPC. What they raise becomes a status in the error interceptor."""

    def __init__(self, health: Health, lifecycle: Lifecycle, running: RunningCalls) -> None:
        self._health = health
        self._lifecycle = lifecycle
        self._running = running
        self._job_numbers = count(1)

    async def Generate(  # type: ignore[override]
        self, request: worker_service_pb2.GenerateRequest, context: _Context
    ) -> None:
        """Run one generation."""
        # Writes by itself, so that it is here, and not in grpc, that the end of a shutdown's grace finds the call.
        with self._running.hold():

            async def write(responses: tuple[inference_service_pb2.GenerateResponse, ...]) -> None:
                for response in responses:
                    await context.write(response)

            finished = await self.generate(
                request,
                context.time_remaining(),
                send_head=context.send_initial_metadata,
                send=lambda responses: partial(write, responses),
            )
            context.set_trailing_metadata(finished_trailers(finished))

    async def generate(
        self,
        request: worker_service_pb2.GenerateRequest,
        remaining_s: float | None,
        *,
        send_head: Callable[[tuple[tuple[str, str], ...]], Awaitable[None]],
        send: SendResponses,
    ) -> generation_pb2.Finished:
        """Answer Generate. Nothing comes before the first token, so that until then it can go elsewhere.

        ``remaining_s`` is the time to the call's deadline, None without one. ``send_head`` is given the initial
        metadata once the request is admitted. Returns the last thing that was sent.
        """
        model = self._health.serving_model()
        served = model.checkpoint.checkpoint_sha256
        if request.checkpoint_sha256 != served:
            raise CheckpointMismatchError(served=served, requested=request.checkpoint_sha256)
        if request.HasField("gateway_queue"):
            model.load_feed.hear(request.gateway_queue)
        job = parse_job(
            request,
            job_id=f"job-{next(self._job_numbers)}",
            facts=model.facts,
            defaults=model.checkpoint.sampling_defaults,
        )

        async def on_admitted() -> None:
            await send_head(((LOAD_SAMPLE, str(model.load_feed.sample_number)),))

        generation = Generation(model, job, request, send)
        try:
            return await generation.run(_deadline(remaining_s), on_admitted=on_admitted)
        except EngineDeadError as error:
            self._health.declare_dead(error)
            raise

    async def WatchLoad(
        self, request: worker_service_pb2.WatchLoadRequest, context: _Context
    ) -> AsyncGenerator[worker_service_pb2.WatchLoadResponse]:
        """Push load reports."""
        async for report in self._health.loaded_model().load_feed.reports():
            yield worker_service_pb2.WatchLoadResponse(load_report=report)

    async def GetModel(
        self, request: worker_service_pb2.GetModelRequest, context: _Context
    ) -> worker_service_pb2.GetModelResponse:
        """Describe the model."""
        return self._health.loaded_model().describe()

    async def GetTokenizer(
        self, request: worker_service_pb2.GetTokenizerRequest, context: _Context
    ) -> AsyncGenerator[worker_service_pb2.GetTokenizerResponse]:
        """Stream the tokenizer's files. Empty files are left out."""
        checkpoint = self._health.loaded_model().checkpoint
        files = (
            (worker_service_pb2.TOKENIZER_FILE_TOKENIZER_JSON, checkpoint.tokenizer_json),
            (worker_service_pb2.TOKENIZER_FILE_CHAT_TEMPLATE, checkpoint.chat_template.encode()),
            (worker_service_pb2.TOKENIZER_FILE_TOKENIZER_CONFIG, checkpoint.tokenizer_config),
        )
        for file, content in files:
            for start in range(0, len(content), _PIECE_BYTES):
                yield worker_service_pb2.GetTokenizerResponse(file=file, data=content[start : start + _PIECE_BYTES])

    async def ShareSuspects(
        self, request: worker_service_pb2.ShareSuspectsRequest, context: _Context
    ) -> worker_service_pb2.ShareSuspectsResponse:
        """Keep what a gateway suspects, for the others."""
        feed = self._health.loaded_model().load_feed
        for suspect in request.suspects:
            remaining_s = suspect.remaining_duration.ToNanoseconds() / 1e9
            feed.suspects.add(
                suspect.request_digest, suspect.instance_id, remaining_s=remaining_s, is_silent=suspect.is_silent
            )
        feed.changed()
        return worker_service_pb2.ShareSuspectsResponse()

    async def Drain(
        self, request: worker_service_pb2.DrainRequest, context: _Context
    ) -> worker_service_pb2.DrainResponse:
        """Begin to shut down."""
        model = self._health.loaded_model()
        grace_s = request.grace_duration.ToNanoseconds() / 1e9 if request.HasField("grace_duration") else None
        self._lifecycle.request_stop(grace_s)
        return worker_service_pb2.DrainResponse(running_request_count=model.ledger.requests)


def finished_trailers(finished: generation_pb2.Finished) -> tuple[tuple[str, bytes], ...]:
    """The copy of Finished that ends a call, for relays that do not parse its messages."""
    return ((FINISHED_BIN, finished.SerializeToString()),)


def _deadline(remaining_s: float | None) -> float | None:
    """The call's deadline in the event loop's time; None when it has none. Raises ``DeadlineExceededError``."""
    if remaining_s is None:
        return None
    if remaining_s <= 0:
        raise DeadlineExceededError("the deadline had passed before the generation began")
    return asyncio.get_running_loop().time() + remaining_s
