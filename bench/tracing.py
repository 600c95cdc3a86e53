"""What tracing costs: CPU of the gateway and of the worker for an answer, and answers a second, traced and not.

    python -m bench.tracing

Gateway, worker, client and collector are processes of their own, of which the first two are counted, by the kernel.
There is one pair of gateway and worker for each variant, and all are up at once; the load goes to one pair after the
other, in short rounds of an order that is drawn anew for each turn. Two pairs trace nothing: how far they are apart is
how far equal pairs are apart. What else runs on the machine makes rounds dearer and never cheaper, so that the cheapest
of many tells most.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.data_plane import handshake
from bench.data_plane.accounting import ProcessTree
from bench.data_plane.processes import announced
from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.grpc_status import CallError
from tidegate.http2.limits import Limits
from tidegate.http2.transport import Flusher
from tidegate.inference.v1 import chat_pb2, inference_service_pb2
from tidegate.native.choice import CHOICE

_METHOD = "/tidegate.inference.v1.InferenceService/Generate"
_PROMPT_TOKENS = 100
# Nobody listens there.
_DEAD = "http://127.0.0.1:1"
# What was traced in a round is sent before the pair's next one; 5 s are the default.
_SEND_EVERY_S = 1.0
_SETTLE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way of tracing; ``sends_to`` is the collector's address, or none."""

    name: str
    sends_to: str = ""
    sampler: str = "parentbased_always_on"

    @property
    def command(self) -> list[str]:
        """What stands before the module's name."""
        delay = f"OTEL_BSP_SCHEDULE_DELAY={_SEND_EVERY_S * 1e3:.0f}"
        return ["env", "PYTHONHASHSEED=0", f"OTEL_TRACES_SAMPLER={self.sampler}", delay, sys.executable, "-m"]

    @property
    def flags(self) -> list[str]:
        """Of gateway and worker."""
        return [
            "--listen=127.0.0.1:0",
            "--admin-listen=",
            *([f"--otlp-endpoint={self.sends_to}"] * bool(self.sends_to)),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """``streams`` ask for answers of ``tokens`` tokens, one after the other."""

    tokens: int
    streams: int
    answers: int  # of each stream in a round

    @property
    def total(self) -> int:
        """Answers in a round."""
        return self.streams * self.answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A gateway and its worker."""

    address: str
    gateway: ProcessTree
    worker: ProcessTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round took: microseconds of CPU for an answer, and answers a second."""

    gateway_us: float
    worker_us: float
    rate: float

    @property
    def cpu_us(self) -> float:
        """Of both."""
        return self.gateway_us + self.worker_us


class Client:
    """Asks one gateway."""

    def __init__(self, address: str) -> None:
        """Make it inside a running event loop."""
        host, _, port = address.rpartition(":")
        endpoint = Endpoint(role=Role.CLIENT, clock=time.monotonic, limits=Limits())
        flusher = Flusher(asyncio.get_running_loop())
        self._channel = Channel(endpoint, Target(host=host, port=int(port)), flusher=flusher)
        self._words = handshake.prompt(_PROMPT_TOKENS).split(" ")
        self._rng = random.Random(7)

    async def load(self, workload: Workload) -> None:
        """One round."""
        await asyncio.gather(*(self._stream(workload) for _ in range(workload.streams)))

    async def until_ready(self) -> None:
        """A gateway listens before it has shaken hands with its worker."""
        while True:
            try:
                return await self.load(Workload(tokens=1, streams=1, answers=1))
            except CallError:
                await asyncio.sleep(0.1)

    async def _stream(self, workload: Workload) -> None:
        for _ in range(workload.answers):
            call = await self._channel.call(_METHOD, timeout_s=60.0)
            call.send(self._request(workload.tokens), half_close=True)
            while await call.receive() is not None:
                pass

    def _request(self, tokens: int) -> bytes:
        self._rng.shuffle(self._words)  # or the worker would have the prompt in its cache
        request = inference_service_pb2.GenerateRequest(model="sim")
        request.chat.messages.add(role=chat_pb2.CHAT_ROLE_USER, content=" ".join(self._words))
        request.sampling.max_output_tokens = request.sampling.min_output_tokens = tokens
        return request.SerializeToString()


class Meter:
    """Reads one pair's rounds: CPU from the beginning of one to that of the next, with what is sent in between."""

    def __init__(self, pair: Pair, workload: Workload) -> None:
        """Make it inside a running event loop."""
        self.rounds: list[Round] = []
        self._pair = pair
        self._workload = workload
        self._client = Client(pair.address)
        self._begun: tuple[float, float, float] | None = None

    async def warm_up(self) -> None:
        """Until the gateway has its worker, and one round more."""
        await self._client.until_ready()
        await self._client.load(self._workload)

    async def turn(self) -> None:
        """The next round."""
        self.note()
        began = time.monotonic()
        cpu = self._pair.gateway.cpu_s(), self._pair.worker.cpu_s()
        await self._client.load(self._workload)
        self._begun = (*cpu, self._workload.total / (time.monotonic() - began))

    def note(self) -> None:
        """The last round is over, and so is what came of it."""
        if self._begun is None:
            return
        gateway_s, worker_s, rate = self._begun
        self.rounds.append(
            Round(
                gateway_us=(self._pair.gateway.cpu_s() - gateway_s) / self._workload.total * 1e6,
                worker_us=(self._pair.worker.cpu_s() - worker_s) / self._workload.total * 1e6,
                rate=rate,
            )
        )
        self._begun = None


async def measure_all(pairs: Mapping[str, Pair], workload: Workload, rounds: int) -> Mapping[str, Sequence[Round]]:
    """Of each pair, its rounds."""
    meters = {name: Meter(pair, workload) for name, pair in pairs.items()}
    for meter in meters.values():
        await meter.warm_up()
    await asyncio.sleep(_SETTLE_S)
    order = random.Random(rounds)
    for _ in range(rounds):
        for meter in order.sample(list(meters.values()), k=len(meters)):
            await meter.turn()
    await asyncio.sleep(_SETTLE_S)
    for meter in meters.values():
        meter.note()
    return {name: meter.rounds for name, meter in meters.items()}


def rows(found: Mapping[str, Sequence[Round]]) -> Iterator[str]:
    """A table's lines, by the cheapest tenth of the rounds, and the quartiles of all."""
    first, second, *_ = found.values()
    base_us = (_low([one.cpu_us for one in first]) + _low([one.cpu_us for one in second])) / 2
    base_rate = (_high([one.rate for one in first]) + _high([one.rate for one in second])) / 2
    yield "| variant | gateway us | worker us | both (quartiles) | both, to untraced | answers/s | to untraced |"
    yield "|---|---|---|---|---|---|---|"
    for name, taken in found.items():
        gateway_us = _low([one.gateway_us for one in taken])
        worker_us = _low([one.worker_us for one in taken])
        quartiles = ", ".join(f"{value:,.0f}" for value in statistics.quantiles((one.cpu_us for one in taken), n=4))
        cpu_us, rate = _low([one.cpu_us for one in taken]), _high([one.rate for one in taken])
        yield (
            f"| {name} | {gateway_us:,.0f} | {worker_us:,.0f} | {cpu_us:,.0f} ({quartiles}) |"
            f" {cpu_us / base_us - 1:+.1%} | {rate:,.0f} | {rate / base_rate - 1:+.1%} |"
        )


def _low(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=10)[0]


def _high(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=10)[-1]


def run_pair(stack: ExitStack, variant: Variant, folder: Path, options: argparse.Namespace) -> Pair:
    """Started; it ends with the stack."""
    sim = ["worker", "--engine=sim", f"--sim-time-scale={options.time_scale}", *variant.flags]
    log = folder / f"{variant.name}.worker.log"
    worker_pid, worker = stack.enter_context(announced([*variant.command, *sim], log))
    gateway = ["gateway", f"--workers={worker}", *variant.flags]
    log = folder / f"{variant.name}.gateway.log"
    gateway_pid, address = stack.enter_context(announced([*variant.command, *gateway], log))
    return Pair(address=address, gateway=ProcessTree(pid=gateway_pid), worker=ProcessTree(pid=worker_pid))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--time-scale", type=float, default=0.05, help="of the simulated engine; below 1 is faster")
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    workloads = (Workload(tokens=200, streams=48, answers=2), Workload(tokens=1, streams=16, answers=16))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        collector = [sys.executable, "-m", "bench.tracing_collector"]
        _, live = stack.enter_context(announced(collector, folder / "collector.log"))
        variants = (
            Variant(name="no tracing"),
            Variant(name="no tracing, again"),
            Variant(name="0 % sampled", sends_to=f"http://{live}", sampler="parentbased_always_off"),
            Variant(name="100 %, collector alive", sends_to=f"http://{live}"),
            Variant(name="100 %, collector dead", sends_to=_DEAD),
        )
        pairs = {variant.name: run_pair(stack, variant, folder, options) for variant in variants}
        for workload in workloads:
            found = uvloop.run(measure_all(pairs, workload, options.rounds))
            print(
                f"\n{workload.streams} streams, answers of {workload.tokens} tokens, {options.rounds} rounds;",
                CHOICE.words,
            )
            print(*rows(found), sep="\n", flush=True)


if __name__ == "__main__":
    main()
