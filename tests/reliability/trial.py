"""One run: a fleet, clients that never stop asking, and a nemesis; then the verdict."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

import worker
from tests.reliability.checker import Checker
from tests.reliability.history import History, record
from tests.reliability.nemesis import FAULTS, Nemesis, until_used
from tests.reliability.services import Service, fleet, load_of
from tidegate.inference.v1 import inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.worker.v1 import worker_service_pb2_grpc
from worker.sim_language import SimLanguage

_TOKENIZER = Path(worker.__file__).parent / "sim_model" / "tokenizer.json"

_CONFIG = json.loads((Path(worker.__file__).parents[1] / "protos" / "service_config.json").read_text(encoding="utf-8"))
_NO_HEALTH_CHECKS = json.dumps({key: value for key, value in _CONFIG.items() if key != "healthCheckConfig"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``streams`` run at a time. The nemesis strikes until ``faults`` have happened or ``duration_s`` is over."""

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
    grace_s: float = 5.0


@dataclass(kw_only=True)
class Report:
    """What came of it."""

    histories: list[History] = field(default_factory=list)
    faults: int = 0
    wrong: list[str] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    blocks_held: int = 0
    seconds: float = 0.0

    @property
    def ends(self) -> Counter[str]:
        """How many calls ended how."""
        return Counter(history.reasons[-1] if history.reasons else "nothing" for history in self.histories)

    @property
    def gaps_s(self) -> list[float]:
        """The longest gap of each stream that was continued, ascending."""
        return sorted(history.longest_gap_s for history in self.histories if history.continuations)

    def summary(self) -> dict[str, object]:
        """The figures, for a table."""
        gaps, recovery = self.gaps_s, sorted(self.recovery_s)
        return {
            "faults": self.faults,
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
            "seconds": round(self.seconds),
        }


async def run(plan: Plan) -> Report:
    """Carry ``plan`` out."""
    rng = random.Random(plan.seed)
    report, begin = Report(), time.monotonic()
    checker = Checker(SimLanguage(_TOKENIZER.read_bytes(), seed=0, mean_output_tokens=None))
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers, gateways = await stack.enter_async_context(
            fleet(
                directory,
                workers=plan.workers,
                gateways=plan.gateways,
                worker_arguments=("--sim-time-scale", str(plan.time_scale)),
                grace_s=plan.grace_s,
            )
        )
        # Clients know all gateways, check no health, and retry as the service config says that is shipped.
        names = ",".join(gateway.address for gateway in gateways)
        own = (("grpc.enable_retries", 1), ("grpc.service_config", _NO_HEALTH_CHECKS))
        options = (*(option for option in CHANNEL_OPTIONS if option[0] != "grpc.enable_retries"), *own)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"ipv4:{names}", options=options))
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        nemesis = Nemesis(workers=workers, gateways=gateways, rng=rng)
        is_over = asyncio.Event()
        numbers = itertools.count(1)

        async def client() -> None:
            while not is_over.is_set():
                seed = next(numbers)
                history = await record(stub, model="sim", seed=seed, tokens=rng.randint(*plan.tokens))
                report.histories.append(history)
                report.wrong.extend(f"seed {seed}: {fault}" for fault in checker.faults(history))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(plan.streams):
                tasks.create_task(client())
            for service in workers:  # a gateway is ready when it has one of them
                await until_used(service)
            await asyncio.sleep(plan.pause_s)
            while nemesis.faults < plan.faults and time.monotonic() - begin < plan.duration_s:
                await FAULTS[plan.kinds[nemesis.faults % len(plan.kinds)]](nemesis)
                nemesis.faults += 1
                await asyncio.sleep(plan.pause_s)
            is_over.set()
        report.faults, report.recovery_s = nemesis.faults, nemesis.recovery_s
        report.blocks_held = await _blocks_held(workers)
    report.seconds = time.monotonic() - begin
    return report


async def _blocks_held(workers: Sequence[Service]) -> int:
    """Blocks that some worker still holds two seconds after the last stream has ended."""
    held = 0
    for service in workers:
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
            until = time.monotonic() + 2
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
