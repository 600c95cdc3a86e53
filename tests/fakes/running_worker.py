"""A real worker on a free port of localhost, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.token_ids import packed
from tidegate.telemetry.setup import Telemetry
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc
from worker.app import Worker
from worker.config import WorkerSettings
from worker.engines import EngineFactory, build_engine


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningWorker:
    """The worker, a channel to it, and what it said of its model."""

    worker: Worker
    life: asyncio.Task[int]  # its result is the exit code
    channel: grpc.aio.Channel
    stub: worker_service_pb2_grpc.WorkerServiceAsyncStub
    model: worker_service_pb2.GetModelResponse

    def request(
        self, prompt: Sequence[int] = (3, 4, 5), *, max_output_tokens: int = 4, **fields: Any
    ) -> worker_service_pb2.GenerateRequest:
        """A valid request; ``fields`` go over what stands here."""
        request = worker_service_pb2.GenerateRequest(
            response_id="response-1",
            checkpoint_sha256=self.model.model.digests.checkpoint_sha256,
            prompt_token_ids=packed(prompt),
        )
        request.sampling.max_output_tokens = max_output_tokens
        request.output.include_token_ids = True
        request.MergeFrom(worker_service_pb2.GenerateRequest(**fields))
        return request

    async def load(self) -> worker_service_pb2.LoadReport:
        """One load report, as of now."""
        watch = self.stub.WatchLoad(worker_service_pb2.WatchLoadRequest())
        try:
            async for response in watch:
                return response.load_report
        finally:
            watch.cancel()
        raise AssertionError("the watch ended without a report")


@asynccontextmanager
async def running_worker(
    settings: WorkerSettings | None = None,
    engine_factory: EngineFactory = build_engine,
    telemetry: Telemetry | None = None,
    on_loaded: Callable[[], None] = lambda: None,
) -> AsyncIterator[RunningWorker]:
    """Start a worker, wait until it is ready, and end it afterwards."""
    settings = settings or WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=5, sim_time_scale=0.01)
    if "admin_listen" not in settings.model_fields_set:
        settings = settings.model_copy(update={"admin_listen": ""})
    worker = Worker(settings, engine_factory, telemetry, on_loaded)
    life = asyncio.create_task(worker.run())
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait((life, ready), return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if life.done():
        raise AssertionError(f"the worker ended with {life.result()} before it was ready")
    try:
        async with grpc.aio.insecure_channel(worker.address, options=CHANNEL_OPTIONS) as channel:
            stub: worker_service_pb2_grpc.WorkerServiceAsyncStub = worker_service_pb2_grpc.WorkerServiceStub(channel)
            model = await stub.GetModel(worker_service_pb2.GetModelRequest())
            yield RunningWorker(worker=worker, life=life, channel=channel, stub=stub, model=model)
    finally:
        worker.stop()
        await life
