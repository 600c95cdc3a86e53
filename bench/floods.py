"""Floods of HTTP/2 frames against a running gateway, with good clients beside: ``python -m bench.floods``.

Every attack writes as fast as the gateway reads, and comes back when its connection is closed; stopped readers ask for
50 streams of a thousand tokens a second each, and never read. Good clients hold 50 streams at a token every 20 ms; what
is compared is their latency with and without the attack. The attacker has the lowest priority, since it would be on
another machine.

Until those that never read have filled their windows, the worker makes 50,000 tokens a second for them, on the same
cores. What that costs the good ones is no attack: the same streams, read by a client that keeps up, are a row of their
own, to compare with; and so are stopped readers who have all that is kept for them, for whom no more tokens are made.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.data_plane import handshake
from bench.data_plane.experiment import until_serving
from bench.data_plane.scenarios import Scenario
from bench.data_plane.subjects import SUBJECTS, Running, Site
from bench.data_plane.toolchain import prepare
from tidegate.http2 import frames
from tidegate.http2.fields import encode
from tidegate.http2.messages import framed
from tidegate.http2.request_head import request_fields
from tidegate.inference.v1 import inference_service_pb2

_GOOD = Scenario(name="good", title="", streams=50, channels=2, seconds=4.0, interval_us=20_000)
_ATTACK_S = 8.0  # longer than the good clients take
_LOWEST_PRIORITY = 19
_SLOW_CONNECTIONS = 500
_READ, _STOPPED, _FULL = "readers", "stopped readers", "stopped for long"
# Until an attack does what it does, and until the last one of them does.
_SETTLE_S, _FILL_S = 0.5, 12.0
_FAST = Scenario(name="fast", title="", streams=50, channels=1, seconds=_ATTACK_S, interval_us=1_000)
_REQUEST = encode(
    request_fields("/tidegate.inference.v1.InferenceService/Generate", authority="localhost", is_tls=False)
)
_HELLO = frames.PREFACE + frames.settings({})

# What is sent next, for the number of pieces sent before on this connection; about 16 kB at a time.
Flood = Callable[[int], bytes]


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return frames.header(kind, flags, stream_id, len(payload)) + payload


def _rapid_reset(piece: int) -> bytes:
    ids = range(1 + 200 * piece, 1 + 200 * (piece + 1), 2)
    cancel = (8).to_bytes(4, "big")
    return b"".join(
        frames.header_block(id_, _REQUEST, end_stream=False) + _frame(frames.RST_STREAM, 0, id_, cancel) for id_ in ids
    )


def _continuation(piece: int) -> bytes:
    begin = _frame(frames.HEADERS, 0, 1, _REQUEST) if piece == 0 else b""
    return begin + 400 * _frame(frames.CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 6)


def _ping(piece: int) -> bytes:
    return 900 * _frame(frames.PING, 0, 0, b"01234567")


def _settings(piece: int) -> bytes:
    return 1_000 * frames.settings({4: 65_535})


def _empty_data(piece: int) -> bytes:
    begin = frames.header_block(1, _REQUEST, end_stream=False) if piece == 0 else b""
    return begin + 1_800 * _frame(frames.DATA, 0, 1, b"")


def _unread(stream_id: int) -> bytes:
    request = inference_service_pb2.GenerateRequest(model="bench", text="The tide comes in.")
    request.sampling.max_output_tokens = 100_000
    request.sampling.seed = _FAST.interval_us  # microseconds between two tokens of the bench's worker
    message = framed(request.SerializeToString())
    head = frames.header_block(stream_id, _REQUEST, end_stream=False)
    return head + _frame(frames.DATA, frames.END_STREAM, stream_id, message)


FLOODS: dict[str, Flood | None] = {
    "rapid reset": _rapid_reset,
    "CONTINUATION": _continuation,
    "PING": _ping,
    "SETTINGS": _settings,
    "empty DATA": _empty_data,
    "slow preface": None,
    _STOPPED: None,
    _READ: None,
    _FULL: None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an attack did. Latencies in microseconds."""

    attack: str
    connections: int
    sent_bytes: int
    quiet_p99_us: float
    attacked_p99_us: float
    failed_good_streams: int
    gateway_cores: float

    @property
    def ratio(self) -> float:
        """Of good clients' p99 with the attack, to that without."""
        return self.attacked_p99_us / self.quiet_p99_us


def main(
    *,
    only: Annotated[str | None, typer.Option(help=f"Some of {', '.join(FLOODS)}, separated by commas.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Run each attack once and print a row."""
    tools = prepare()
    subject = next(subject for subject in SUBJECTS if subject.name == "tidegate-http2")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_file, prompt_file = handshake.write(folder, prompt_tokens=100)
        site = Site(tools=tools, folder=folder, model_file=model_file, prompt_file=prompt_file)
        with subject.start(site) as running:
            until_serving(running, site)
            _good_clients(running, site)  # for warmth
            if not as_json:
                print("| attack | connections | MB sent | good p99 ms, quiet | attacked | ratio | gateway cores |")
                print("|---|---|---|---|---|---|---|")
            for attack in FLOODS if only is None else only.split(","):
                effect = _measure(attack, running, site)
                print(json.dumps(_object(effect)) if as_json else _row(effect), flush=True)


def _measure(attack: str, running: Running, site: Site) -> Effect:
    before, _, _ = _good_clients(running, site)
    with _attacking(attack, running, site) as tally:
        attacked, failed, cores = _good_clients(running, site)
        connections, sent = tally[0], tally[1]
    after, _, _ = _good_clients(running, site)
    return Effect(
        attack=attack,
        connections=int(connections),
        sent_bytes=int(sent),
        quiet_p99_us=(before + after) / 2,
        attacked_p99_us=attacked,
        failed_good_streams=failed,
        gateway_cores=cores,
    )


def _good_clients(running: Running, site: Site) -> tuple[float, int, float]:
    """Their p99 latency, how many failed, and the gateway's CPU seconds per second meanwhile."""
    if running.gateway is None:
        raise ValueError("nothing to attack")
    began, cpu_s = time.monotonic(), running.gateway.cpu_s()
    done = subprocess.run(_clients(_GOOD, running, site), stdout=subprocess.PIPE, text=True, check=False)
    cores = (running.gateway.cpu_s() - cpu_s) / (time.monotonic() - began)
    end = json.loads(done.stdout.splitlines()[-1])
    if end["failed"]:
        print(end["error"], file=sys.stderr)
    return end["latency_p99_us"], end["failed"], cores


def _clients(scenario: Scenario, running: Running, site: Site) -> list[str]:
    target = [f"--target={running.address}", f"--prompt-file={site.prompt_file}"]
    return [str(running.streams), *target, *scenario.arguments()]


@contextmanager
def _attacking(attack: str, running: Running, site: Site) -> Iterator[Any]:
    """The attack goes on inside; yields an array of connections made and bytes sent."""
    tally = multiprocessing.Array("d", 2)
    process = multiprocessing.Process(target=_attack, args=(attack, running, site, tally), daemon=True)
    process.start()
    time.sleep(_FILL_S if attack == _FULL else _SETTLE_S)
    try:
        yield tally
    finally:
        process.terminate()
        process.join()


def _attack(attack: str, running: Running, site: Site, tally: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(_LOWEST_PRIORITY)
    if attack == _READ:
        tally[0] = 1
        command = _clients(_FAST, running, site)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(command[0], command)  # noqa: S606 - as this process, which is ended
    host, _, port = running.address.rpartition(":")
    flood = FLOODS[attack]
    end_at = time.monotonic() + _ATTACK_S
    if attack in (_STOPPED, _FULL):
        with socket.create_connection((host, int(port))) as peer:
            # No window of a stream is ever widened, and after its greeting nothing is read of the socket either.
            hello = _HELLO + b"".join(map(_unread, range(1, 2 * _FAST.streams, 2)))
            peer.sendall(hello)
            tally[0], tally[1] = 1, len(hello)
            time.sleep(_FILL_S + _ATTACK_S)
        return
    if flood is None:
        held: list[socket.socket] = []
        while time.monotonic() < end_at:
            held = [peer for peer in held if not _is_closed(peer)]
            while len(held) < _SLOW_CONNECTIONS:
                held.append(socket.create_connection((host, int(port))))
                held[-1].sendall(frames.PREFACE[:3])
                tally[0], tally[1] = tally[0] + 1, tally[1] + 3
            time.sleep(0.05)
        return
    while time.monotonic() < end_at:
        with suppress(OSError), socket.create_connection((host, int(port))) as peer:
            tally[0] += 1
            peer.settimeout(1.0)
            peer.sendall(_HELLO)
            for piece in count():
                data = flood(piece)
                peer.sendall(data)
                tally[1] += len(data)
                if _is_closed(peer) or time.monotonic() > end_at:
                    break


def _is_closed(peer: socket.socket) -> bool:
    """Whether the gateway has hung up; what it says is thrown away."""
    try:
        return peer.recv(2**16, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _object(effect: Effect) -> dict[str, object]:
    return {name: getattr(effect, name) for name in (*effect.__slots__, "ratio")}


def _row(e: Effect) -> str:
    failed = f" ({e.failed_good_streams} good streams failed)" if e.failed_good_streams else ""
    return (
        f"| {e.attack}{failed} | {e.connections:,} | {e.sent_bytes / 1e6:,.1f} | {e.quiet_p99_us / 1e3:.1f} "
        f"| {e.attacked_p99_us / 1e3:.1f} | {e.ratio:.2f} | {e.gateway_cores:.2f} |"
    )


if __name__ == "__main__":
    typer.run(main)
