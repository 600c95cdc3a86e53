"""A fleet in virtual time: the sim engine's own scheduler for each worker, the gateway's own fleet for each gateway.

Nothing waits for a clock, so that a minute of a fleet takes seconds of one core, and a seed gives the same run again.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import cast

from gateway.model import ServedModel
from gateway.policy.demand import Demand
from gateway.policy.load import WorkerLoad
from gateway.policy.outcomes import Outcome
from gateway.prefix import prefix_names, prefix_stride
from gateway.workers.client import WorkerClient
from gateway.workers.fleet import Fleet
from gateway.workers.seat import Lease, Seat
from tidegate.rpc.token_ids import packed
from worker.sim_profile import SimProfile
from worker.sim_scheduler import ScheduledRequest, Scheduler

_HOP_S = 0.0005
_REPORT_INTERVAL_S = 0.02
_SAMPLE_INTERVAL_S = 0.1
_RATE_TIME_CONSTANT_S = 5.0

_MODEL = cast(
    "ServedModel",
    SimpleNamespace(
        name="m",
        checkpoint_sha256="c",
        tokenizer_sha256="t",
        chat_template_sha256="j",
        kv_pool_tokens=1,
        can_continue=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of a trace."""

    at_s: float
    tokens: tuple[int, ...]
    output_tokens: int


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A request on its way."""

    arrival: Arrival
    demand: Demand
    worker: int
    gateway: int
    request: ScheduledRequest | None = None
    lease: Lease | None = None
    first_token_at: float | None = None


class SimWorker:
    """One engine, with the figures that it would report."""

    def __init__(self, profile: SimProfile, *, slowness: float = 1.0) -> None:
        self.scheduler = Scheduler(profile)
        self.profile = profile
        self.slowness = slowness
        self.jobs: dict[ScheduledRequest, Job] = {}
        self.is_stepping = False
        self.has_changed = True
        self._prefill = (0.0, 0.0)
        self._decode = (0.0, 0.0)

    @property
    def blocks_in_use(self) -> int:
        """Blocks that running requests hold."""
        return self.profile.total_blocks - self.scheduler.pool.free_blocks

    def count(self, *, prefill_tokens: int, output_tokens: int, seconds: float) -> None:
        """A step computed so much."""
        decay = max(0.0, 1 - seconds / _RATE_TIME_CONSTANT_S)
        if prefill_tokens:
            self._prefill = (self._prefill[0] * decay + prefill_tokens, self._prefill[1] * decay + seconds)
        self._decode = (self._decode[0] * decay + output_tokens, self._decode[1] * decay + seconds)

    def load(self, now: float) -> WorkerLoad:
        """The report of this instant. Prompts are pending until their first token, as the ledger counts them."""
        reserved = sum(-(-job.demand.need_tokens // self.profile.block_size) for job in self.jobs.values())
        pending = sum(job.demand.prompt_tokens for job in self.jobs.values() if job.first_token_at is None)
        return WorkerLoad(
            received_at=now,
            block_size=self.profile.block_size,
            total_blocks=self.profile.total_blocks,
            free_blocks=self.scheduler.pool.free_blocks,
            reserved_blocks=reserved,
            running_requests=self.scheduler.running_requests,
            pending_prefill_tokens=pending,
            prefill_tokens_per_s=self._prefill[0] / self._prefill[1] if self._prefill[1] else 0.0,
            decode_tokens_per_s=self._decode[0] / self._decode[1] if self._decode[1] else 0.0,
            is_draining=False,
        )


class SimGateway:
    """One gateway's view of the fleet."""

    def __init__(self, workers: Sequence[SimWorker], rng: random.Random, clock: Callable[[], float]) -> None:
        self.fleet = Fleet(rng, clock)
        self.rng = rng
        self.workers = workers  # as they are, which no gateway sees
        self.sent = [0] * len(workers)
        self.next_worker = rng.randrange(len(workers))
        self.seats: list[Seat] = []
        for number, worker in enumerate(workers):
            client = cast("WorkerClient", SimpleNamespace(target=str(number)))
            self.seats.append(self.fleet.join(client, _MODEL, worker.load(0.0)))


Policy = Callable[[SimGateway, Job], int]


def round_robin(gateway: SimGateway, job: Job) -> int:
    """One after the other."""
    gateway.next_worker = (gateway.next_worker + 1) % len(gateway.seats)
    return gateway.next_worker


def least_requests(gateway: SimGateway, job: Job) -> int:
    """The one with the fewest of this gateway's own requests."""
    return min(range(len(gateway.seats)), key=lambda number: (gateway.sent[number], gateway.rng.random()))


def most_free_blocks(gateway: SimGateway, job: Job) -> int:
    """The one with the most free KV blocks, by its last report and what was sent since."""
    return min(
        range(len(gateway.seats)),
        key=lambda number: (
            gateway.seats[number].unseen.blocks - gateway.seats[number].load.available_blocks,
            gateway.rng.random(),
        ),
    )


def all_knowing(gateway: SimGateway, job: Job) -> int:
    """The one with the fewest blocks in use at this instant: no report, no other gateway's job is unknown."""
    return min(range(len(gateway.workers)), key=lambda number: gateway.workers[number].blocks_in_use)


def tidegate(gateway: SimGateway, job: Job) -> int:
    """The product's own policy."""
    job.lease = gateway.fleet.lease(_MODEL, job.demand, exclude=())
    if job.lease is None:
        raise RuntimeError("no worker took the job")
    return int(job.lease.worker_id)


POLICIES: dict[str, Policy] = {
    "round-robin": round_robin,
    "least-requests": least_requests,
    "most-free-blocks": most_free_blocks,
    "tidegate": tidegate,
}
# What no gateway can do; the measure of how much more could be had.
IDEAL: dict[str, Policy] = {"all-knowing": all_knowing}


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run has shown. Times in seconds."""

    ttfts: list[float] = field(default_factory=list)
    short_ttfts: list[float] = field(default_factory=list)  # of prompts below 1,000 tokens
    prompt_tokens: int = 0
    cached_tokens: int = 0
    requests: list[int] = field(default_factory=list)  # by worker
    # For each sample: how far the worker farthest from the mean is from it, in parts of the mean; by blocks in use.
    spreads: list[float] = field(default_factory=list)
    sent: list[tuple[float, int]] = field(default_factory=list)  # time and worker of each request

    @property
    def cached_share(self) -> float:
        """The part of all prompt tokens that came out of a cache."""
        return self.cached_tokens / self.prompt_tokens

    @staticmethod
    def quantile(values: Iterable[float], share: float) -> float:
        """The value below which so many lie."""
        ordered = sorted(values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The size of a world. ``slowness``: how many times slower than the profile some workers are, by number."""

    workers: int
    gateways: int
    seed: int
    slowness: Mapping[int, float] = field(default_factory=dict)


class World:
    """Runs one trace against one policy."""

    def __init__(self, profile: SimProfile, policy: Policy, setting: Setting) -> None:
        self.now = 0.0
        self._policy = policy
        self._rng = random.Random(setting.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._workers = [
            SimWorker(profile, slowness=setting.slowness.get(number, 1.0)) for number in range(setting.workers)
        ]
        self._gateways = [
            SimGateway(self._workers, random.Random(setting.seed + number), lambda: self.now)
            for number in range(1, setting.gateways + 1)
        ]
        self._stride = prefix_stride(profile.block_size)
        self.result = Result(requests=[0] * setting.workers)

    def run(self, trace: Iterable[Arrival], *, sample_from_s: float = 0.0) -> Result:
        """To the end of all requests of ``trace``. The load is sampled until the last one arrives."""
        arrivals = list(trace)
        for arrival in arrivals:
            self._at(arrival.at_s, partial(self._arrive, arrival))
        for number in range(len(self._workers)):
            self._at(0.0, partial(self._report, number))
        self._at(sample_from_s, partial(self._sample, arrivals[-1].at_s))
        while len(self.result.ttfts) < len(arrivals) or any(worker.jobs for worker in self._workers):
            self.now, _, event = heapq.heappop(self._events)
            event()
        return self.result

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _arrive(self, arrival: Arrival) -> None:
        number = self._rng.randrange(len(self._gateways))
        gateway = self._gateways[number]
        demand = Demand(
            prompt_tokens=len(arrival.tokens),
            need_tokens=len(arrival.tokens) + arrival.output_tokens,
            prefix=prefix_names(packed(arrival.tokens), self._stride),
            prefix_stride=self._stride,
        )
        job = Job(arrival=arrival, demand=demand, worker=0, gateway=number)
        job.worker = self._policy(gateway, job)
        gateway.sent[job.worker] += 1
        if job.lease is None:  # what a policy knows of its own jobs is the same for all
            blocks = -(-demand.need_tokens // self._workers[0].profile.block_size)
            gateway.seats[job.worker].unseen.send(blocks=blocks, prefill_tokens=demand.prompt_tokens)
        self.result.requests[job.worker] += 1
        self.result.sent.append((self.now, job.worker))
        self._at(self.now + _HOP_S, partial(self._submit, job))

    def _submit(self, job: Job) -> None:
        worker = self._workers[job.worker]
        job.request = ScheduledRequest(
            tokens=list(job.arrival.tokens),
            prompt_tokens=len(job.arrival.tokens),
            ready_at=self.now + worker.profile.timing.request_overhead_s,
        )
        worker.jobs[job.request] = job
        worker.scheduler.add(job.request)
        worker.has_changed = True
        self._at(job.request.ready_at, partial(self._step, worker))

    def _step(self, worker: SimWorker) -> None:
        if worker.is_stepping:
            return
        step = worker.scheduler.plan(self.now)
        if not step.chunks:
            return
        worker.is_stepping = True
        seconds = worker.slowness * worker.profile.timing.step_s(
            prefill_tokens=step.prefill_tokens, decode_requests=step.decode_requests
        )

        def end() -> None:
            worker.is_stepping = False
            worker.has_changed = True
            complete = worker.scheduler.commit(step)
            worker.count(prefill_tokens=step.prefill_tokens, output_tokens=len(complete), seconds=seconds)
            for request in complete:
                self._advance(worker, request)
            self._step(worker)
            ready_at = worker.scheduler.next_ready_at
            if not worker.is_stepping and ready_at is not None and ready_at > self.now:
                self._at(ready_at, partial(self._step, worker))

        self._at(self.now + seconds, end)

    def _advance(self, worker: SimWorker, request: ScheduledRequest) -> None:
        job = worker.jobs[request]
        if job.first_token_at is None:
            job.first_token_at = self.now
            ttft = self.now - job.arrival.at_s
            self.result.ttfts.append(ttft)
            if len(job.arrival.tokens) < 1000:  # noqa: PLR2004 - as Result says
                self.result.short_ttfts.append(ttft)
            self.result.prompt_tokens += len(job.arrival.tokens)
            self.result.cached_tokens += request.cached_tokens
            if job.lease is not None:
                job.lease.begin()
        request.tokens.append(-1 - self._rng.randrange(1 << 30))
        if len(request.tokens) - request.prompt_tokens >= job.arrival.output_tokens:
            worker.scheduler.remove(request)
            del worker.jobs[request]
            self._gateways[job.gateway].sent[job.worker] -= 1
            if job.lease is not None:
                job.lease.close(
                    Outcome.SUCCESS, output_tokens=job.arrival.output_tokens, cached_tokens=request.cached_tokens
                )

    def _report(self, number: int) -> None:
        worker = self._workers[number]
        if worker.has_changed:
            worker.has_changed = False
            load = worker.load(self.now + _HOP_S)

            def arrive() -> None:
                for gateway in self._gateways:
                    gateway.fleet.report(gateway.seats[number], load)

            self._at(self.now + _HOP_S, arrive)
            self._at(self.now + _REPORT_INTERVAL_S, partial(self._report, number))
        else:
            self._at(self.now + _REPORT_INTERVAL_S / 4, partial(self._report, number))

    def _sample(self, until_s: float) -> None:
        in_use = [worker.blocks_in_use for worker in self._workers]
        mean = sum(in_use) / len(in_use)
        if mean:
            self.result.spreads.append(max(abs(blocks - mean) for blocks in in_use) / mean)
        if self.now < until_s:
            self._at(self.now + _SAMPLE_INTERVAL_S, partial(self._sample, until_s))
