"""Thousands of clients vanish, each at some byte of its request or answer; nothing of them may stay behind.

Two rounds in which caches, pools and free lists come to their size, and three more. How soon the engine is rid of a
client's work is read from the worker's span of the call, which ends when its blocks are free; it and the client's end
are told by the same machine's clock.
"""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.proto.trace.v1 import trace_pb2

from tests.fakes.collector import Collector, collecting
from tests.reliability.accounts import Accounts
from tests.reliability.books import left_under_way
from tests.reliability.intruders import Vanished, vanish
from tests.reliability.services import FleetPlan, Service, fleet
from tests.reliability.verdict import Verdict
from tests.reliability.watched import DIRECTORY_VARIABLE

_ROUNDS, _FIRST_ROUNDS = 5, 2
_RATE_PER_S = 150.0  # what two processors carry with some to spare
_TOKENS = 400
_MAX_ABORT_P99_S = 0.2
# A round's growth of memory that is no growth: 100 bytes for each of 10,000 clients.
_FLAT_MIB = 1.0
_SETTLE_S = 3.0  # until all spans have come
_TOLD_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a process holds while nobody asks anything of it."""

    tasks: int
    open_files: int
    resident_mib: float


async def run(*, seed: int, clients: int) -> Verdict:
    """``clients`` vanish in each round."""
    rng, wrong = random.Random(seed), []
    rounds: list[Mapping[str, Holdings]] = []
    gone: list[Vanished] = []
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        collector = await stack.enter_async_context(collecting())
        async with fleet(directory, _plan(collector, directory)) as (workers, gateways):
            services = (*gateways, *workers)
            await _vanish(gateways[0].address, rng, clients // 10)  # so that all is there that is made on first use
            for _ in range(1 + _ROUNDS):
                wrong += await left_under_way(services)
                await asyncio.sleep(_SETTLE_S)
                rounds.append({service.address: await _holdings(service, directory) for service in services})
                if len(rounds) <= _ROUNDS:
                    gone += await _vanish(gateways[0].address, rng, clients)
        accounts = Accounts(collector.spans)
        wrong += accounts.open_spans()
        aborts_s = sorted(_abort_times(gone, collector))
        admitted = sum(ends.get("admitted", 0) for ends in accounts.totals().values())
    for service in services:
        wrong += _left(service.address, [holdings[service.address] for holdings in rounds])
    p99_s = aborts_s[int(0.99 * len(aborts_s))] if aborts_s else 0.0
    if p99_s > _MAX_ABORT_P99_S:
        wrong.append(f"aborted after {p99_s:.3f} s (p99)")
    gateway, worker = (_growth_mib([found[service.address] for found in rounds]) for service in services)
    after = "/".join(f"{found[services[0].address].resident_mib:.1f}" for found in rounds[1:])
    return Verdict(
        figure=f"{_ROUNDS} rounds of {clients} clients, {admitted} of them with work on a worker, aborted p99"
        f" {1000 * p99_s:.0f} ms; tasks and file descriptors back to base; the gateway's memory after each round"
        f" {after} MiB, {gateway:+.1f} a round after the second, the worker's {worker:+.1f}",
        details={
            "clients": len(gone),
            "admitted": admitted,
            "aborted": len(aborts_s),
            "abort_p50_s": round(aborts_s[len(aborts_s) // 2], 4) if aborts_s else None,
            "abort_p99_s": round(p99_s, 4),
            "holdings": [{address: str(held) for address, held in found.items()} for found in rounds],
        },
        wrong=wrong,
    )


def _plan(collector: Collector, directory: Path) -> FleetPlan:
    return FleetPlan(
        workers=1,
        gateways=1,
        worker_arguments=("--engine", "sim", "--sim-time-scale", "8"),
        otlp_endpoint=collector.endpoint,
        environment={
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "OTEL_BSP_MAX_QUEUE_SIZE": "65536",
            DIRECTORY_VARIABLE: str(directory),
        },
        is_watched=True,
    )


async def _vanish(address: str, rng: random.Random, count: int) -> list[Vanished]:
    async with asyncio.TaskGroup() as tasks:
        vanishing = []
        for _ in range(count):
            vanishing.append(tasks.create_task(vanish(address, rng, tokens=_TOKENS)))
            await asyncio.sleep(rng.expovariate(_RATE_PER_S))
    return [task.result() for task in vanishing]


async def _holdings(service: Service, directory: Path) -> Holdings:
    told = directory / str(service.pid)
    told.unlink(missing_ok=True)
    service.signal(signal.SIGUSR1)
    async with asyncio.timeout(_TOLD_WITHIN_S):
        while not told.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    return Holdings(
        tasks=int(told.read_text(encoding="ascii")),
        open_files=service.open_files,
        resident_mib=round(service.resident_mib, 1),
    )


def _left(address: str, rounds: Sequence[Holdings]) -> list[str]:
    """What a process holds after its rounds that it did not hold before them."""
    base, *after = rounds
    left = [
        f"{address}: {name} {getattr(base, name)} before, {[getattr(held, name) for held in after]} after each round"
        for name in ("tasks", "open_files")
        if max(getattr(held, name) for held in after) > getattr(base, name)
    ]
    if (growth_mib := _growth_mib(rounds)) > _FLAT_MIB:
        left.append(f"{address}: memory grows by {growth_mib:.1f} MiB a round")
    return left


def _growth_mib(rounds: Sequence[Holdings]) -> float:
    """Of memory, a round, after the first ones."""
    settled = rounds[_FIRST_ROUNDS:]
    return (settled[-1].resident_mib - settled[0].resident_mib) / (len(settled) - 1)


def _abort_times(gone: Sequence[Vanished], collector: Collector) -> list[float]:
    """Seconds from a client's end to that of its work on a worker, where that had not come before."""
    at_ns = {one.trace_id: one.at_ns for one in gone}
    ends = (
        (span.span.end_time_unix_nano, at_ns.get(span.span.trace_id.hex(), 0))
        for span in collector.spans
        if span.service == "tidegate-worker" and span.span.kind == trace_pb2.Span.SPAN_KIND_SERVER
    )
    return [(ended_ns - gone_ns) / 1e9 for ended_ns, gone_ns in ends if gone_ns and ended_ns > gone_ns]
