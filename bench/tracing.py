"""What tracing costs: answers a second, and CPU of the gateway and of the worker for an answer, traced and not.

    python -m bench.tracing

Gateway, worker, client and collector are processes of their own. There is one pair of gateway and worker, which is
switched from one way of tracing to another between rounds of less than a tenth of a second (``bench.tracing_service``).
In a block, rounds of one way and of no tracing alternate; the ratio of the two sums is one value. The order of the ways
is drawn anew for each turn, and a pair is started anew several times, since a process has its luck with memory and
cores. What is told is the median of the values with its 95 % interval. One of the ways is none, again: what it differs
by is nothing.

Spans are sent when there are enough for a batch, and never before: what a round leaves waits for the next one of its
way, so that all that is sent is sent in rounds that are traced.

The worker has a core to itself, together with its threads that send spans; all else shares the others. No core falls
idle (``bench.steady_cores``).
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from bench.data_plane import handshake
from bench.data_plane.processes import announced
from bench.paired import change, ratio, verdict
from bench.steady_cores import kept_awake, leave, on
from bench.tracing_client import CallFailedError, Client
from bench.tracing_service import AGAIN, ALL, DEAD, UNSAMPLED, UNTRACED, signal_of
from tidegate.inference.v1 import chat_pb2, inference_service_pb2
from tidegate.native.choice import CHOICE

_METHOD = "/tidegate.inference.v1.InferenceService/Generate"
_PROMPT_TOKENS = 100
# The share of throughput that a way may cost, as a change.
_GOALS = {AGAIN: 0.0, UNSAMPLED: 0.0, ALL: -0.05, DEAD: 0.0}
# The blocks of a turn. All traces have two, since theirs is the goal that is near what they cost.
_TURN = (*_GOALS, ALL)
# Longer than a run takes.
_SEND_EVERY_S = 3600.0
# Of the gateway to read its worker's load and to shake hands, and of both to end what is left of a round.
_SETTLE_S = 1.0
_BREATH_S = 0.006
_ROUNDS_IN_BLOCK = 7
_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """``streams`` ask for answers of ``tokens`` tokens, one after the other."""

    tokens: int
    streams: int
    answers: int  # in a round
    share: float  # of the time

    @property
    def words(self) -> str:
        """As a heading."""
        return f"{self.streams} streams, {self.answers} answers of {self.tokens} tokens in a round"


# Its spans are more than the queue for a dead collector holds.
_WARM_UP = Workload(tokens=1, streams=16, answers=1024, share=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round took: seconds of CPU, and of time."""

    gateway_s: float
    worker_s: float
    client_s: float
    wall_s: float

    @property
    def cpu_s(self) -> float:
        """Of both services."""
        return self.gateway_s + self.worker_s


class Pair:
    """A gateway and its worker, and the client that asks them."""

    def __init__(self, stack: ExitStack, collector: str, folder: Path, options: argparse.Namespace) -> None:
        """Started; it ends with the stack."""
        delay = f"OTEL_BSP_SCHEDULE_DELAY={_SEND_EVERY_S * 1e3:.0f}"
        command = ["env", delay, sys.executable, "-m", "bench.tracing_service", f"http://{collector}"]
        flags = ["--listen=127.0.0.1:0", "--admin-listen="]
        sim = ["worker", "--engine=sim", f"--sim-time-scale={options.time_scale}"]
        apart = [*on(options.worker_core), *command, *sim, *flags]
        worker_pid, worker = stack.enter_context(announced(apart, folder / "worker.log"))
        ahead = ["gateway", f"--workers={worker}"]
        gateway_pid, address = stack.enter_context(announced([*command, *ahead, *flags], folder / "gateway.log"))
        self._pids = gateway_pid, worker_pid
        self._client = stack.enter_context(closing(Client(address, _METHOD)))
        self._words = handshake.prompt(_PROMPT_TOKENS).split(" ")
        self._rng = random.Random(_SEED)

    def warm_up(self) -> None:
        """Until the gateway has its worker, and the queue for the dead collector is full."""
        give_up_at = time.monotonic() + 30.0
        while True:
            try:
                self._client.load(self._requests(1, tokens=1), 1)
                break
            except CallFailedError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.1)
        for way in (UNTRACED, UNSAMPLED, ALL, DEAD):
            self.round(way, _WARM_UP)

    def round(self, way: str, workload: Workload) -> Round:
        """One round."""
        for pid in self._pids:
            os.kill(pid, signal_of(way))
        requests = self._requests(workload.answers, tokens=workload.tokens)
        time.sleep(_BREATH_S)
        gateway_s, worker_s = map(_cpu_s, self._pids)
        client, began = time.process_time(), time.perf_counter()
        self._client.load(requests, workload.streams)
        wall_s, client_s = time.perf_counter() - began, time.process_time() - client
        time.sleep(_BREATH_S)
        gateway_end_s, worker_end_s = map(_cpu_s, self._pids)
        return Round(
            gateway_s=gateway_end_s - gateway_s, worker_s=worker_end_s - worker_s, client_s=client_s, wall_s=wall_s
        )

    def _requests(self, count: int, *, tokens: int) -> list[bytes]:
        return [self._request(tokens) for _ in range(count)]

    def _request(self, tokens: int) -> bytes:
        self._rng.shuffle(self._words)  # or the worker would have the prompt in its cache
        request = inference_service_pb2.GenerateRequest(model="sim")
        request.chat.messages.add(role=chat_pb2.CHAT_ROLE_USER, content=" ".join(self._words))
        request.sampling.max_output_tokens = request.sampling.min_output_tokens = tokens
        return request.SerializeToString()


def _cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process so far, those that have ended among them, to the nanosecond."""
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rounds of one way, and those of no tracing before, between and after them."""

    taken: Sequence[Round]
    beside: Sequence[Round]

    def ratio(self, figure: str) -> float:
        """Of a figure of rounds, to no tracing."""
        return ratio([getattr(one, figure) for one in self.taken], [getattr(one, figure) for one in self.beside])


def block(pair: Pair, way: str, workload: Workload) -> Block:
    """One block."""
    taken, beside = [], [pair.round(UNTRACED, workload)]
    for _ in range(_ROUNDS_IN_BLOCK):
        taken.append(pair.round(way, workload))
        beside.append(pair.round(UNTRACED, workload))
    return Block(taken=taken, beside=beside)


Starts = Sequence[Mapping[str, Sequence[Block]]]  # of each, the blocks by their way


def rows(starts: Starts, workload: Workload) -> Iterator[str]:
    """A table's lines."""
    yield "| way | gateway us (more) | worker us (more) | CPU of both | answers/s | throughput | of each start | goal |"
    yield "|---|---|---|---|---|---|---|---|"
    for way, least in _GOALS.items():
        blocks = [one for start in starts for one in start[way]]
        taken = [one for each in blocks for one in each.taken]
        rates = change([1 / one.ratio("wall_s") for one in blocks], seed=_SEED)
        of_each = ", ".join(
            f"{1 / statistics.median(one.ratio('wall_s') for one in start[way]) - 1:+.1%}" for start in starts
        )
        yield (
            f"| {way} | {_us([one.gateway_s for one in taken], workload):,.0f}"
            f" ({_more_us(blocks, 'gateway_s', workload):+.0f})"
            f" | {_us([one.worker_s for one in taken], workload):,.0f}"
            f" ({_more_us(blocks, 'worker_s', workload):+.0f})"
            f" | {change([one.ratio('cpu_s') for one in blocks], seed=_SEED).words}"
            f" | {workload.answers / statistics.median(one.wall_s for one in taken):,.0f}"
            f" | {rates.words} | {of_each} | {least:+.0%}: {verdict(rates, least)} |"
        )


def busy(starts: Starts) -> str:
    """What limits the rate, in words."""
    found = [one for start in starts for blocks in start.values() for each in blocks for one in each.beside]
    wall_s = sum(one.wall_s for one in found)
    shares = {
        "gateway": sum(one.gateway_s for one in found) / wall_s,
        "worker": sum(one.worker_s for one in found) / wall_s,
        "client": sum(one.client_s for one in found) / wall_s,
    }
    return "Busy untraced, of one core: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def _more_us(blocks: Sequence[Block], service: str, workload: Workload) -> float:
    """Than no tracing beside it."""
    ratios = [each.ratio(service) for each in blocks]
    beside_us = _us([getattr(one, service) for each in blocks for one in each.beside], workload)
    return (statistics.median(ratios) - 1) * beside_us


def _us(seconds: Sequence[float], workload: Workload) -> float:
    return statistics.median(seconds) / workload.answers * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=4, help="of the pair")
    parser.add_argument("--tokens", type=int, nargs="*", default=(200, 1), help="of the answers")
    parser.add_argument("--minutes", type=float, default=5.0, help="for all rounds")
    parser.add_argument("--time-scale", type=float, default=0.02, help="of the simulated engine; below 1 is faster")
    parser.add_argument("--worker-core", type=int, default=min(os.sched_getaffinity(0)), help="of the worker alone")
    options = parser.parse_args()
    known = (
        Workload(tokens=200, streams=12, answers=24, share=0.7),
        Workload(tokens=1, streams=16, answers=96, share=0.3),
    )
    workloads = [workload for workload in known if workload.tokens in options.tokens]
    order, began = random.Random(_SEED), time.monotonic()
    found: dict[Workload, list[Mapping[str, Sequence[Block]]]] = {workload: [] for workload in workloads}
    with tempfile.TemporaryDirectory() as name, kept_awake():
        leave(options.worker_core)
        folder = Path(name)
        for _ in range(options.starts):
            with ExitStack() as stack:
                collector = [sys.executable, "-m", "bench.tracing_collector"]
                _, alive = stack.enter_context(announced(collector, folder / "collector.log"))
                pair = Pair(stack, alive, folder, options)
                time.sleep(_SETTLE_S)
                pair.warm_up()
                for workload in workloads:
                    blocks: dict[str, list[Block]] = {way: [] for way in _GOALS}
                    until = time.monotonic() + 60 * options.minutes * workload.share / options.starts
                    while time.monotonic() < until:
                        for way in order.sample(_TURN, k=len(_TURN)):
                            blocks[way].append(block(pair, way, workload))
                    found[workload].append(blocks)
                    pair.round(UNTRACED, workload)
                spans = [(folder / f"{service}.log").read_text().splitlines()[-1] for service in ("gateway", "worker")]
    for workload, starts in found.items():
        of_each = "+".join(str(len(start[AGAIN])) for start in starts)
        print(f"\n{workload.words}; blocks of a way by start: {of_each}, twice as many of all traces; {CHOICE.words}")
        print(busy(starts))
        print(*rows(starts, workload), sep="\n", flush=True)
    print("\nspans, at the last start's end:", *spans, f"seed {_SEED}; {time.monotonic() - began:.0f} s", sep="\n")


if __name__ == "__main__":
    main()
