"""A worker process: gRPC server, engine and health, put together and run from start to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import REGISTRY

from tidegate.http2.limits import Allowance, Limits
from tidegate.http2.transport import Flusher
from tidegate.native.choice import CHOICE
from tidegate.rpc.lifecycle import Lifecycle
from tidegate.rpc.port import GrpcPort, Http2Port, Port
from tidegate.rpc.running_calls import RunningCalls
from tidegate.rpc.served_calls import ServedCalls
from tidegate.rpc.server import ErrorInterceptor, Keepalive, server_options
from tidegate.rpc.telemetry import TraceInterceptor
from tidegate.telemetry.loop_lag import LoopLag
from tidegate.telemetry.port import admin_port
from tidegate.telemetry.setup import Telemetry
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc
from worker.abandonable import in_abandonable_thread
from worker.checkpoint import CheckpointError
from worker.config import WorkerSettings
from worker.engine import Engine, EngineDeadError, EngineError
from worker.engines import EngineFactory, build_engine
from worker.errors import NotServingError, to_rpc
from worker.health import Health
from worker.http2_service import Http2Service
from worker.model import ServedModel
from worker.observers import observe_edge, observe_model, observe_process
from worker.service import WorkerService
from worker.startup import read_checkpoint, start_model

_LOGGER = logging.getLogger(__name__)

_SERVICE = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
# Calls fail by themselves once the engine is dead; this is for their answers to get out.
_LAST_WORDS_S = 2.0

# A gateway passes the cancels of all its clients on, each of which has an allowance of its own there. To cut the
# gateway off for one of them would end the streams of all.
_RESETS = Allowance(burst=100_000, per_s=10_000.0)


class Worker:
    """A worker process. ``run`` is its life; ``ready`` and ``address`` tell others how far it has got."""

    def __init__(
        self,
        settings: WorkerSettings,
        engine_factory: EngineFactory = build_engine,
        telemetry: Telemetry | None = None,
        on_loaded: Callable[[], None] = lambda: None,
    ) -> None:
        """``telemetry`` None tells nobody but the admin port; ``on_loaded`` is called right before it is ready."""
        self.ready = asyncio.Event()
        self.address = ""
        self.admin_address = ""  # empty while there is none
        self._telemetry = telemetry or Telemetry.silent()
        self.metrics = self._telemetry.metrics
        self._settings = settings
        self._engine_factory = engine_factory
        self._on_loaded = on_loaded
        self._exit_code = 0
        self._model: ServedModel | None = None
        self._lifecycle = Lifecycle(services=(_SERVICE,), grace_s=settings.drain_grace_s, until_idle=self._until_idle)
        self._lag = LoopLag()
        observe_process(self.metrics, self._lifecycle, self._lag)
        self._health = Health(self._lifecycle, stall_after_s=settings.stall_after_s, on_death=self._end_with_error)
        running = RunningCalls(_grace_is_over)
        self._lifecycle.on_grace_end(running.end_all)
        self._port = self._make_port(WorkerService(self._health, self._lifecycle, running), running)

    async def run(self) -> int:
        """Serve until a signal, a ``Drain`` or the engine's death; returns the process's exit code."""
        listen, is_default = self._settings.admin_listen, "admin_listen" not in self._settings.model_fields_set
        async with AsyncExitStack() as stack:
            try:
                admin = admin_port(listen, self.metrics, {}, is_default=is_default)
                self.admin_address = await stack.enter_async_context(admin)
            except OSError as error:
                _LOGGER.error("cannot listen on %s: %s", listen, error.strerror)  # noqa: TRY400
                return 1
            return await self._serve()

    async def _serve(self) -> int:
        await self._lifecycle.set_ready(False)
        try:
            self.address = await self._port.open(self._settings.listen)
        except OSError as error:
            _LOGGER.error("cannot listen on %s: %s", self._settings.listen, error)  # noqa: TRY400
            return 1
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._load_and_watch(), name="engine"),
                tasks.create_task(self._lag.run(), name="loop lag"),
            ]
            await self._lifecycle.serve(self._port)
            for task in background:
                task.cancel()
        return self._exit_code

    @property
    def is_busy(self) -> bool:
        """Whether it has requests."""
        return self._model is not None and self._model.ledger.requests > 0

    def stop(self) -> None:
        """Begin to drain, as SIGTERM does."""
        self._lifecycle.request_stop()

    def _make_port(self, service: WorkerService, running: RunningCalls) -> Port:
        settings, calls = self._settings, ServedCalls(self._telemetry)
        keepalive = Keepalive(time_s=settings.keepalive_s, timeout_s=settings.keepalive_timeout_s)
        interceptors = (TraceInterceptor(calls), ErrorInterceptor(to_rpc, _LOGGER))
        server = grpc.aio.server(interceptors=interceptors, options=server_options(keepalive))
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._lifecycle.health, server)
        reflection.enable_server_reflection((_SERVICE, reflection.SERVICE_NAME), server)
        if settings.data_plane == "grpc":
            return GrpcPort(server)
        handlers = Http2Service(service, running).handlers(calls)
        limits = Limits(
            keepalive_s=keepalive.time_s,
            keepalive_timeout_s=keepalive.timeout_s,
            resets=_RESETS,
            unread_timeout_s=None,  # a client that takes little and late is the gateway's business
        )
        port = Http2Port(server, handlers, flusher=Flusher(asyncio.get_running_loop()), limits=limits)
        observe_edge(self.metrics, port.abuse)
        return port

    async def _load_and_watch(self) -> None:
        engine: Engine | None = None
        try:
            checkpoint = await read_checkpoint(self._settings)
            # In a thread, since importing vLLM takes seconds in which health checks want their answer.
            engine = await in_abandonable_thread(partial(self._engine_factory, self._settings, checkpoint))
            if self._settings.engine == "vllm":
                self.metrics.include(REGISTRY)  # where vLLM keeps its own
            self._model = await start_model(
                self._settings,
                checkpoint,
                engine,
                telemetry=self._telemetry,
                is_draining=lambda: self._lifecycle.is_draining,
            )
            self._lifecycle.on_drain(self._model.load_feed.changed)
            observe_model(self.metrics, self._model)
            self._on_loaded()
            facts = self._model.facts
            _LOGGER.info(
                "ready on %s: model %s, engine %s, %d KV blocks of %d tokens; %s",
                self.address,
                self._model.name,
                facts.name,
                facts.total_blocks,
                facts.block_size,
                CHOICE.words,
            )
            self.ready.set()
            prefetching = asyncio.create_task(self._model.prefetcher.run(), name="prefetch")
            try:
                await self._health.serve(self._model)
            finally:
                prefetching.cancel()
        except (CheckpointError, EngineDeadError, EngineError, ValueError) as error:
            _LOGGER.error("cannot start: %s", error)  # noqa: TRY400 - the message says it all
            self._end_with_error()
        finally:
            if self._model is not None:
                await self._model.constraints.close()
            if engine is not None:
                await engine.stop()

    async def _until_idle(self) -> None:
        while self.is_busy and self._model is not None:
            await self._model.load_feed.wait_for_change()

    def _end_with_error(self) -> None:
        self._exit_code = 1
        self._lifecycle.request_stop(_LAST_WORDS_S)


def _grace_is_over() -> NotServingError:
    return NotServingError("the worker is shutting down, and its grace is over")
