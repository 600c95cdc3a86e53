"""What the HTTP/2 core costs without a socket: CPU per relayed message and per WINDOW_UPDATE, memory per idle stream.

    python bench/http2_core.py

CPU time of this process alone, best of several rounds: the figures hold on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import tracemalloc
from collections.abc import Callable

from tidegate.http2 import frames
from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.errors import ErrorCode, Http2StreamError
from tidegate.http2.fields import Fields, encode
from tidegate.http2.grpc_status import Status
from tidegate.http2.limits import Limits
from tidegate.http2.messages import framed
from tidegate.http2.relay import Relay
from tidegate.http2.request_head import RequestHead, request_fields
from tidegate.http2.server import GrpcServer
from tidegate.http2.server_call import RESPONSE_HEAD, ServerCall
from tidegate.http2.streams import Stream, StreamHandler
from tidegate.http2.transport import Flusher

_STREAMS = 16
_ROUNDS = 5
_MESSAGE = framed(bytes(30))
_REQUEST = encode(request_fields("/bench.Service/Method", authority="localhost", is_tls=False))
_WIDE = 2**30


class RelayedStreams:
    """Sixteen calls that are relayed from one core to another."""

    def __init__(self) -> None:
        """Both cores have shaken hands, and all calls have begun."""
        self.calls: list[ServerCall] = []
        self.down = Connection(Endpoint(role=Role.SERVER, clock=time.monotonic), wake=_nothing, accept=self._accept)
        self.up = Connection(Endpoint(role=Role.CLIENT, clock=time.monotonic), wake=_nothing, accept=_refuse)
        requests = [frames.header_block(id_, _REQUEST, end_stream=True) for id_ in range(1, 2 * _STREAMS, 2)]
        self.down.receive(frames.PREFACE + frames.settings({4: _WIDE}) + b"".join(requests))
        heads = [frames.settings({})]
        for call in self.calls:
            relay = Relay(call, on_messages=_unchanged)
            relay.stream = self.up.open_stream(_REQUEST, relay, end_stream=True)
            heads.append(frames.header_block(relay.stream.id, encode(RESPONSE_HEAD), end_stream=False))
        self.up.receive(b"".join(heads))

    def relay(self, data: bytes) -> None:
        """One read from upstream, and the writes that follow."""
        self.up.receive(data)
        self.up.take_output()
        self.down.take_output()

    def widen(self) -> None:
        """As the client would."""
        self.down.outbound.window = _WIDE
        for stream in self.down.streams.open.values():
            stream.send_window = _WIDE

    def _accept(self, stream: Stream, fields: Fields, end_stream: bool) -> ServerCall:  # noqa: FBT001 - Acceptor
        head = RequestHead(method="/bench.Service/Method", fields=fields)
        loop = asyncio.get_running_loop()
        call = ServerCall(stream, head, peer="", max_message_bytes=2**20, on_end=lambda call: None, loop=loop)
        self.calls.append(call)
        return call


def relayed_message_us(frames_per_read: int) -> float:
    """CPU microseconds per relayed message, with so many frames in each read."""
    streams = RelayedStreams()
    data = b"".join(
        frames.header(frames.DATA, 0, 1 + 2 * (n % _STREAMS), len(_MESSAGE)) + _MESSAGE for n in range(frames_per_read)
    )
    reads = 64_000 // frames_per_read

    def run() -> None:
        for _ in range(reads):
            streams.relay(data)

    return _best_s(run, before=streams.widen) / (reads * frames_per_read) * 1e6


def window_update_us() -> float:
    """CPU microseconds per WINDOW_UPDATE; grpc clients send almost one per message."""
    streams = RelayedStreams()
    data = b"".join(frames.window_update(1 + 2 * (n % _STREAMS), 1) for n in range(64))

    def run() -> None:
        for _ in range(100):
            streams.down.receive(data)

    return _best_s(run, before=_nothing, rounds=1) / 6_400 * 1e6


def idle_stream_bytes(count: int) -> float:
    """Memory of a call that waits in its handler, task and all, as tracemalloc counts it."""

    async def hang(call: ServerCall) -> Status:
        await call.receive_only()
        await asyncio.Event().wait()
        raise AssertionError

    async def measure() -> float:
        endpoint = Endpoint(role=Role.SERVER, clock=time.monotonic, limits=Limits(max_concurrent_streams=count))
        server = GrpcServer(endpoint, {"/bench.Service/Method": hang}, flusher=Flusher(asyncio.get_running_loop()))
        reader, writer = await asyncio.open_connection("127.0.0.1", await server.listen("127.0.0.1", 0))
        writer.write(frames.PREFACE + frames.settings({}) + frames.settings_ack())
        request = framed(b"a prompt")
        data = frames.header(frames.DATA, frames.END_STREAM, 0, len(request))[:5]
        await asyncio.sleep(0.1)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for id_ in range(1, 2 * count, 2):
            writer.write(frames.header_block(id_, _REQUEST, end_stream=False) + data + id_.to_bytes(4, "big") + request)
            if id_ % 100 == 1:
                await writer.drain()
                await asyncio.sleep(0)
        (transport,) = server.transports
        while len(transport.connection.streams.open) < count:  # noqa: ASYNC110 - a connection has no events
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        writer.close()
        await server.drain(0)
        del reader
        return (after - before) / count

    return asyncio.run(measure())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--streams", type=int, default=2_000, help="idle streams")
    options = parser.parse_args()
    figures = {
        **{f"relayed message, {n} in a read [us]": round(_in_loop(relayed_message_us, n), 2) for n in (1, 4, 64)},
        "WINDOW_UPDATE [us]": round(_in_loop(window_update_us), 2),
        "idle call [bytes]": round(idle_stream_bytes(options.streams)),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:36} {figure}")


def _in_loop(measure: Callable[..., float], *arguments: int) -> float:
    """Relays need a running loop for their futures."""

    async def run() -> float:
        return measure(*arguments)

    return asyncio.run(run())


def _best_s(run: Callable[[], None], *, before: Callable[[], None], rounds: int = _ROUNDS) -> float:
    best = float("inf")
    for _ in range(rounds):
        before()
        started = time.process_time()
        run()
        best = min(best, time.process_time() - started)
    return best


def _unchanged(messages: bytes) -> bytes:
    return messages


def _nothing() -> None:
    pass


def _refuse(stream: Stream, fields: Fields, end_stream: bool) -> StreamHandler:  # noqa: FBT001 - Acceptor
    raise Http2StreamError(stream.id, ErrorCode.REFUSED_STREAM, "no requests here")


if __name__ == "__main__":
    main()
