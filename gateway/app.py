"""A gateway process: everything is built here by hand, and run from start to end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import NoReturn

import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.admission import Admission
from gateway.config import GatewaySettings
from gateway.decision_log import DecisionLog
from gateway.dispatch import Dispatch
from gateway.errors import DrainingError, to_rpc
from gateway.generation import Generation
from gateway.hedging import Hedging
from gateway.http2_service import Http2Service
from gateway.intake import Intake
from gateway.journal import Journal
from gateway.observers import (
    observe_breakers,
    observe_edge,
    observe_fleet,
    observe_process,
    observe_queue,
    observe_readers,
    observe_traffic,
)
from gateway.policy.continuation import ContinuationLimits
from gateway.policy.limit import Limit
from gateway.policy.quota import Quotas
from gateway.policy.record import SEED_BITS
from gateway.policy.recorded_limit import RecordedLimit
from gateway.policy.recorded_line import LineTerms, RecordedLine
from gateway.policy.tenants import Tenants, TenantTerms
from gateway.policy.waiting_line import WaitingLine
from gateway.preparation import Preparation
from gateway.records import Records
from gateway.resume import ResumeTokens
from gateway.service import InferenceService, add_to_server
from gateway.status import Status
from gateway.traffic_sketches import TrafficSketches
from gateway.waiting_room import WaitingRoom
from gateway.workers.connections import WorkerConnections
from gateway.workers.discovery import Discovery, parse_source
from gateway.workers.fleet import Fleet
from gateway.workers.renderers import Renderers
from gateway.workers.suspect_sharing import SuspectSharing
from gateway.workers.upstreams import Upstreams
from tidegate.http2.limits import Limits
from tidegate.http2.transport import Flusher
from tidegate.inference.v1 import inference_service_pb2
from tidegate.native.choice import CHOICE
from tidegate.rpc.lifecycle import Lifecycle
from tidegate.rpc.port import GrpcPort, Http2Port, Port
from tidegate.rpc.running_calls import RunningCalls
from tidegate.rpc.served_calls import ServedCalls
from tidegate.rpc.server import ErrorInterceptor, Keepalive, server_options
from tidegate.rpc.telemetry import TraceInterceptor
from tidegate.telemetry.labels import BoundedLabels
from tidegate.telemetry.loop_lag import LoopLag
from tidegate.telemetry.port import admin_port
from tidegate.telemetry.setup import Telemetry

_LOGGER = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 16 * 2**20  # of one message of a worker: prompt_logprobs of a long prompt come in one

_SERVICE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name


class Gateway:
    """A gateway process. ``run`` is its life; ``listening`` and ``address`` tell others how far it has got."""

    def __init__(self, settings: GatewaySettings, telemetry: Telemetry) -> None:
        """Make it inside a running event loop."""
        self.listening = asyncio.Event()
        self.address = ""
        self.admin_address = ""  # empty while there is none
        self.fleet = Fleet(random.Random())
        self._decisions = DecisionLog(settings.decision_log)
        self.fleet.on_decision = self._decisions.record if self._decisions.is_wanted else None
        self.metrics = telemetry.metrics
        tenants = _tenants(settings)
        intake = Intake(self.fleet, Quotas(tenants, gateways=settings.quota_gateways), max_wait_s=settings.max_wait_s)
        self.waiting_room = WaitingRoom(self.fleet, intake, partial(_waiting_line, settings, tenants, self._decisions))
        self._settings = settings
        self._keepalive = Keepalive(time_s=settings.keepalive_s, timeout_s=settings.keepalive_timeout_s)
        self._upstreams: Upstreams | None = None
        self._executor = ThreadPoolExecutor(settings.prepare_threads, thread_name_prefix="prepare")
        self._admission = Admission(_limit("max_in_flight", settings.max_in_flight, self._decisions))
        self.traffic = TrafficSketches(
            directory=settings.traffic_sketch_dir,
            interval_s=settings.traffic_sketch_interval_s,
            requests=settings.traffic_sketch_requests,
            rng=random.Random(),
        )
        self._lifecycle = Lifecycle(
            services=(_SERVICE,), grace_s=settings.drain_grace_s, until_idle=self.until_idle, sends_away=True
        )
        self._lifecycle.on_drain(self._admission.close)
        self._lag = LoopLag()
        observe_fleet(self.metrics, self.fleet)
        observe_breakers(self.metrics, self.fleet)
        observe_process(self.metrics, self._admission, self._lifecycle, self._lag, settings)
        observe_traffic(self.metrics, self.traffic)
        running = RunningCalls(_grace_is_over)
        self._lifecycle.on_grace_end(running.end_all)
        backlog = _limit("prepare_backlog_bytes", settings.prepare_backlog_bytes, self._decisions)
        preparation = Preparation(self._executor, backlog)
        self.journal = Journal()
        self._records = Records(telemetry, self.journal, BoundedLabels())
        observe_queue(self.metrics, lambda: self._records.waiting)
        generation = Generation(
            self.fleet,
            running=running,
            admission=self._admission,
            preparation=preparation,
            dispatch=Dispatch(
                self.waiting_room,
                self.fleet,
                _continuation_limits(settings),
                random.Random(),
                hedging=Hedging(
                    self.fleet, share=settings.hedge_share, is_anybody_waiting=lambda: len(self.waiting_room) > 0
                ),
            ),
            records=self._records,
            traffic=self.traffic,
            tenants=tenants,
            waiting_room=self.waiting_room,
            resume_tokens=ResumeTokens.from_file(settings.resume_key_file, lifetime_s=settings.resume_token_lifetime_s),
        )
        service = InferenceService(
            self.fleet,
            self._admission,
            preparation,
            generation,
            max_duration_s=settings.max_duration_s,
            max_stall_s=settings.max_reader_stall_s,
        )
        self._port = self._make_port(service, generation, ServedCalls(telemetry))

    async def run(self) -> int:
        """Serve until SIGTERM, SIGINT or ``stop``; returns the process's exit code."""
        listen, is_default = self._settings.admin_listen, "admin_listen" not in self._settings.model_fields_set
        async with AsyncExitStack() as stack:
            try:
                admin = admin_port(listen, self.metrics, self._status().pages(), is_default=is_default)
                self.admin_address = await stack.enter_async_context(admin)
            except OSError as error:
                _LOGGER.error("cannot listen on %s: %s", listen, error.strerror)  # noqa: TRY400
                return 1
            return await self._serve()

    async def _serve(self) -> int:
        await self._lifecycle.set_ready(False)
        try:
            self.address = await self._port.open(self._settings.listen, reuse_port=self._settings.reuse_port)
        except OSError as error:
            _LOGGER.error("cannot listen on %s: %s", self._settings.listen, error)  # noqa: TRY400
            return 1
        workers = ", ".join(self._settings.workers)
        _LOGGER.info("ready on %s, for workers at %s; %s", self.address, workers, CHOICE.words)
        self.listening.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                renderers = Renderers(self._settings.tokenizer_dir)
                connections = WorkerConnections(
                    self.fleet, renderers, tasks, way=self._upstreams, keepalive=self._keepalive
                )
                discovery = Discovery([parse_source(entry) for entry in self._settings.workers], connections)
                background = [tasks.create_task(discovery.run(), name="discovery")]
                background.append(tasks.create_task(self._decisions.run(), name="decision log"))
                background.append(tasks.create_task(self._publish_readiness(), name="readiness"))
                background.append(tasks.create_task(SuspectSharing(self.fleet).run(), name="suspects"))
                background.append(tasks.create_task(self.traffic.run(), name="traffic sketches"))
                background.append(tasks.create_task(self._lag.run(), name="loop lag"))
                await self._lifecycle.serve(self._port)
                for task in background:
                    task.cancel()
                connections.cancel()
        finally:
            if self._upstreams is not None:
                self._upstreams.close()
            self._executor.shutdown(cancel_futures=True)
            self._decisions.close()
        return 0

    async def until_idle(self) -> None:
        """Wait until no call is held."""
        await self._admission.until_idle()

    def stop(self) -> None:
        """Begin to drain, as SIGTERM does."""
        self._lifecycle.request_stop()

    def _make_port(self, service: InferenceService, generation: Generation, calls: ServedCalls) -> Port:
        interceptors = (TraceInterceptor(calls), ErrorInterceptor(to_rpc, _LOGGER))
        server = grpc.aio.server(
            interceptors=interceptors,
            options=server_options(self._keepalive, reuse_port=self._settings.reuse_port),
        )
        add_to_server(service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._lifecycle.health, server)
        names = (_SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        if self._settings.data_plane == "grpc":
            return GrpcPort(server)
        flusher = Flusher(asyncio.get_running_loop())
        limits = Limits(keepalive_s=self._keepalive.time_s, keepalive_timeout_s=self._keepalive.timeout_s)
        self._upstreams = Upstreams(flusher, replace(limits, max_message_bytes=_MAX_ANSWER_BYTES))
        http2 = Http2Service(
            generation,
            self._upstreams,
            max_duration_s=self._settings.max_duration_s,
            max_stall_s=self._settings.max_reader_stall_s,
        )
        port = Http2Port(server, http2.handlers(calls), flusher=flusher, limits=limits)
        observe_edge(self.metrics, port.abuse)
        observe_readers(self.metrics, port.unread)
        return port

    def _status(self) -> Status:
        return Status(
            self._settings,
            fleet=self.fleet,
            admission=self._admission,
            lifecycle=self._lifecycle,
            journal=self.journal,
            lag=self._lag,
            waiting=lambda: self._records.waiting,
        )

    async def _publish_readiness(self) -> NoReturn:
        while True:
            self.fleet.readiness_changed.clear()
            await self._lifecycle.set_ready(self.fleet.is_serving)
            await self.fleet.readiness_changed.wait()


def _grace_is_over() -> DrainingError:
    return DrainingError("this gateway is shutting down, and its grace is over", retry_after_s=1.0)


def _continuation_limits(settings: GatewaySettings) -> ContinuationLimits:
    return ContinuationLimits(max_losses=settings.max_lost_workers, max_pause_s=settings.max_pause_s)


def _tenants(settings: GatewaySettings) -> Tenants:
    return Tenants(
        {name: TenantTerms(**terms.model_dump()) for name, terms in settings.tenants.items()},
        trusts_claims=settings.trust_tenant_metadata,
        max_tenants=settings.max_tenants,
    )


def _waiting_line(settings: GatewaySettings, tenants: Tenants, decisions: DecisionLog) -> WaitingLine:
    rng = random.Random()
    if decisions.is_wanted:
        terms = LineTerms(
            max_bytes=settings.queue_bytes,
            max_wait_s=settings.max_wait_s,
            weights=tenants.weights,
            seed=rng.getrandbits(SEED_BITS),
        )
        return RecordedLine(terms, rng.getrandbits(SEED_BITS), decisions.record)
    return WaitingLine(max_bytes=settings.queue_bytes, max_wait_s=settings.max_wait_s, weights=tenants.weights, rng=rng)


def _limit(name: str, total: int, decisions: DecisionLog) -> Limit:
    clock, rng = time.monotonic, random.Random()
    if decisions.is_wanted:
        return RecordedLimit(total, name=name, clock=clock, rng=rng, on_decision=decisions.record)
    return Limit(total, clock=clock, rng=rng)
