"""One run: a fleet, clients that never stop asking, and a nemesis; then the verdict."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

import worker
from tests.fakes.collector import Collector, collecting
from tests.reliability.accounts import Accounts
from tests.reliability.books import left_under_way
from tests.reliability.checker import Checker
from tests.reliability.history import History, record
from tests.reliability.memory import MemoryWatch
from tests.reliability.nemesis import FAULTS, POISON, Nemesis, until_used
from tests.reliability.services import FleetPlan, Service, fleet, load_of
from tidegate.inference.v1 import inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.worker.v1 import worker_service_pb2_grpc
from worker.sim_language import SimLanguage

_TOKENIZER = Path(worker.__file__).parent / "sim_model" / "tokenizer.json"

_CONFIG = json.loads((Path(worker.__file__).parents[1] / "protos" / "service_config.json").read_text(encoding="utf-8"))
_NO_HEALTH_CHECKS = json.dumps({key: value for key, value in _CONFIG.items() if key != "healthCheckConfig"})
_SETTLED_S = 30.0  # as long as a machine may take that is busy
_TENANTS = ("red", "green", "blue")
# Spans are sent soon, and none is dropped from a queue that is full.
_TRACING = {"OTEL_BSP_SCHEDULE_DELAY": "500", "OTEL_BSP_MAX_QUEUE_SIZE": "65536"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``streams`` run at a time. The nemesis strikes until ``faults`` have happened or ``duration_s`` is over.

    Of several ``kinds`` each time one is drawn. With ``every_s`` faults begin so far apart, if they do not last longer.
    """

    seed: int = 1
    duration_s: float = 600.0
    faults: int = 1_000_000
    kinds: Sequence[str] = ("kill",)
    workers: int = 2
    gateways: int = 1
    streams: int = 20
    tokens: tuple[int, int] = (100, 400)
    time_scale: float = 4.0  # of the simulated machine; two processors serve all of this
    pause_s: float = 0.5  # between faults
    every_s: float = 0.0


@dataclass(kw_only=True)
class Report:
    """What came of it."""

    histories: list[History] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    poisoned: Counter[str] = field(default_factory=Counter)  # what the clients of a poison were told
    engine_deaths: int = 0  # by poison
    blocks_held: int = 0
    accounts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by tenant
    spans: int = 0
    memory_mib_per_min: Mapping[str, float] = field(default_factory=dict)
    began_at: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    timeline: list[tuple[float, str, float]] = field(default_factory=list)  # when a fault began, and how long it took

    @property
    def ends(self) -> Counter[str]:
        """How many calls ended how."""
        return Counter(history.reasons[-1] if history.reasons else "nothing" for history in self.histories)

    @property
    def gaps_s(self) -> list[float]:
        """The longest gap of each stream that was continued, ascending."""
        return sorted(history.longest_gap_s for history in self.histories if history.continuations)

    def summary(self) -> dict[str, object]:
        """All figures."""
        gaps, recovery = self.gaps_s, sorted(self.recovery_s)
        return {
            "faults": self.faults.total(),
            "kinds": dict(self.faults),
            "streams": len(self.histories),
            "continued": len(gaps),
            "ends": dict(self.ends),
            "finished_share": round(self.ends["FINISHED"] / max(1, len(self.histories)), 5),
            "wrong": len(self.wrong),
            "gap_p50_s": _percentile(gaps, 0.5),
            "gap_p99_s": _percentile(gaps, 0.99),
            "recovery_p50_s": _percentile(recovery, 0.5),
            "recovery_max_s": _percentile(recovery, 1.0),
            "blocks_held_afterwards": self.blocks_held,
            "poisoned": dict(self.poisoned),
            "engine_deaths": self.engine_deaths,
            "accounts": {tenant: dict(ends) for tenant, ends in sorted(self.accounts.items())},
            "spans": self.spans,
            "memory_mib_per_min": dict(self.memory_mib_per_min),
            "seconds": round(self.seconds),
            "timeline": [{"at_s": at_s, "fault": kind, "lasted_s": lasted_s} for at_s, kind, lasted_s in self.timeline],
        }

    def figure(self) -> str:
        """The figures, for the table of docs/reliability.md."""
        gaps, streams = self.gaps_s, len(self.histories)
        finished = f"{self.ends['FINISHED'] / max(1, streams):.2%} finished, {len(self.wrong)} wrong"
        parts = [f"{self.faults.total()} faults, {streams} streams, {len(gaps)} continued: {finished}"]
        parts += [f"gap p99 {_percentile(gaps, 0.99)} s"] if gaps else []
        parts += [f"back at work in {max(self.recovery_s):.3f} s at most"] if self.recovery_s else []
        return "; ".join((*parts, f"{self.blocks_held} blocks held"))


async def run(plan: Plan) -> Report:
    """Carry ``plan`` out."""
    report = Report()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        collector = await stack.enter_async_context(collecting())
        async with fleet(directory, _fleet_plan(plan, collector)) as (workers, gateways):
            nemesis = Nemesis(workers=workers, gateways=gateways, rng=random.Random(plan.seed))
            async with _channel(gateways) as channel:
                stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
                await _strike(plan, nemesis, _Clients(plan, stub, report), report)
            report.recovery_s, report.engine_deaths = nemesis.recovery_s, nemesis.deaths
            report.poisoned.update(nemesis.poisoned)
            report.blocks_held = await _blocks_held(workers)
            report.wrong += [f"{report.blocks_held} blocks held"] if report.blocks_held else []
            report.wrong += [f"still under way: {what}" for what in await left_under_way((*workers, *gateways))]
        _settle(report, Accounts(collector.spans))
        report.spans = len(collector.spans)
    report.seconds = time.monotonic() - report.began_at
    return report


class _Clients:
    """Ask, one call after the other, until they are told to stop."""

    def __init__(self, plan: Plan, stub: inference_service_pb2_grpc.InferenceServiceAsyncStub, report: Report) -> None:
        self._plan = plan
        self._stub = stub
        self._report = report
        self._rng = random.Random(plan.seed)
        self._seeds = itertools.count(1)
        self._checker = Checker(SimLanguage(_TOKENIZER.read_bytes(), seed=0, mean_output_tokens=None))
        self.is_over = False

    async def run(self) -> None:
        while not self.is_over:
            seed, tokens = next(self._seeds), self._rng.randint(*self._plan.tokens)
            history = await record(
                self._stub, model="sim", seed=seed, tokens=tokens, tenant=_TENANTS[seed % len(_TENANTS)]
            )
            self._report.histories.append(history)
            self._report.wrong.extend(f"seed {seed}: {fault}" for fault in self._checker.faults(history))


async def _strike(plan: Plan, nemesis: Nemesis, clients: _Clients, report: Report) -> None:
    """Do all the harm, while clients ask."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(plan.streams):
            tasks.create_task(clients.run())
        for service in nemesis.workers:  # a gateway is ready when it has one of them
            await until_used(service)
        await asyncio.sleep(plan.pause_s)
        memory = MemoryWatch(nemesis.gateways)
        watching = tasks.create_task(memory.run())
        ends_at = time.monotonic() + plan.duration_s
        while nemesis.faults < plan.faults and (began_at := time.monotonic()) < ends_at:
            kind = nemesis.rng.choice(plan.kinds)
            try:
                await FAULTS[kind](nemesis)
            except TimeoutError as error:
                report.wrong.append(f"{kind} at {began_at - report.began_at:.0f} s: {error}")
            nemesis.faults += 1
            report.faults[kind] += 1
            took_s = time.monotonic() - began_at
            report.timeline.append((round(began_at - report.began_at, 1), kind, round(took_s, 1)))
            await asyncio.sleep(max(plan.pause_s, began_at + plan.every_s - time.monotonic()))
        watching.cancel()
        report.memory_mib_per_min = memory.slopes
        clients.is_over = True


def _settle(report: Report, accounts: Accounts) -> None:
    """Hold the spans of all services against what the clients saw."""
    for history in report.histories:
        report.wrong.extend(f"seed {history.seed}: {fault}" for fault in accounts.faults(history))
    report.wrong += accounts.open_spans()
    report.accounts = accounts.totals()
    for tenant, ends in report.accounts.items():
        if ends.get("admitted", 0) != sum(ends.get(end, 0) for end in ("finished", "failed", "cancelled")):
            report.wrong.append(f"{tenant}: admitted is not finished, failed and cancelled together: {dict(ends)}")


def _fleet_plan(plan: Plan, collector: Collector) -> FleetPlan:
    return FleetPlan(
        workers=plan.workers,
        gateways=plan.gateways,
        worker_arguments=(
            *("--engine", "sim", "--sim-time-scale", str(plan.time_scale)),
            *(("--sim-fault-text", POISON) if "poison" in plan.kinds else ()),
        ),
        otlp_endpoint=collector.endpoint,
        environment=_TRACING,
    )


def _channel(gateways: Sequence[Service]) -> grpc.aio.Channel:
    """Clients know all gateways, check no health, and retry as the service config says that is shipped."""
    names = ",".join(gateway.address for gateway in gateways)
    own = (("grpc.enable_retries", 1), ("grpc.service_config", _NO_HEALTH_CHECKS))
    options = (*(option for option in CHANNEL_OPTIONS if option[0] != "grpc.enable_retries"), *own)
    return grpc.aio.insecure_channel(f"ipv4:{names}", options=options)


async def _blocks_held(workers: Sequence[Service]) -> int:
    """Blocks that some worker still holds a while after the last stream has ended."""
    held = 0
    for service in workers:
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
            until = time.monotonic() + _SETTLED_S
            while True:
                load = await load_of(stub)
                left = load.reserved_block_count + load.total_block_count - load.free_block_count
                if not left or time.monotonic() > until:
                    break
                await asyncio.sleep(0.05)
        held += left
    return held


def _percentile(values: Sequence[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(share * len(values)))], 3) if values else None
