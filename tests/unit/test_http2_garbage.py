from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator

import pytest
from grpc import StatusCode
from hyperframe.frame import SettingsFrame

from tests.fakes.patience import PATIENCE_S
from tidegate.http2 import frames
from tidegate.http2.channel import Channel, Target
from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.errors import ErrorCode, Http2StreamError
from tidegate.http2.fields import Fields, encode
from tidegate.http2.grpc_status import Status
from tidegate.http2.messages import framed
from tidegate.http2.relay import Relay
from tidegate.http2.request_head import parse_head, request_fields
from tidegate.http2.server import GrpcServer
from tidegate.http2.server_call import RESPONSE_HEAD, ServerCall
from tidegate.http2.streams import Stream, StreamHandler
from tidegate.http2.transport import Flusher, Transport

_HEAD = encode(request_fields("/package.Service/Method", authority="localhost", is_tls=False))


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What the garbage collector finds from here on; ask it by ``gc.collect()``."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


class Site:
    """A connection to a client and one to a worker, with a request on its way between them."""

    def __init__(self) -> None:
        self.calls: list[ServerCall] = []
        clock = time.monotonic
        self.down = Connection(Endpoint(role=Role.SERVER, clock=clock), wake=_nothing, accept=self._accept)
        self.up = Connection(Endpoint(role=Role.CLIENT, clock=clock), wake=_nothing, accept=_refuse)
        self.down.receive(frames.PREFACE + frames.settings({}))
        self.up.receive(frames.settings({}))

    def begin(self) -> tuple[ServerCall, Relay]:
        """The client sends its request, which is passed on."""
        self.down.receive(frames.header_block(1, _HEAD, end_stream=False))
        self.down.receive(frames.header(frames.DATA, frames.END_STREAM, 1, 6) + framed(b"x"))
        relay = Relay(self.calls[0], on_messages=lambda messages: messages)
        relay.stream = self.up.open_stream(_HEAD, relay)
        relay.stream.send_data(framed(b"x"), end_stream=True)
        return self.calls.pop(), relay

    def _accept(self, stream: Stream, fields: Fields, end_stream: bool) -> ServerCall:  # noqa: FBT001 - Acceptor
        del end_stream
        head = parse_head(fields, max_list_bytes=2**14)
        loop = asyncio.get_running_loop()
        call = ServerCall(stream, head, peer="", max_message_bytes=2**20, on_end=lambda call: None, loop=loop)
        self.calls.append(call)
        return call


def _nothing() -> None:
    pass


def _refuse(stream: Stream, fields: Fields, end_stream: bool) -> StreamHandler:  # noqa: FBT001 - Acceptor
    raise Http2StreamError(stream.id, ErrorCode.REFUSED_STREAM, "no requests here")


def _ours(garbage: list[object]) -> list[object]:
    gc.collect()
    return [one for one in garbage if isinstance(one, (Connection, Relay, ServerCall, Stream, Transport))]


async def test_a_request_that_was_answered_leaves_nothing_to_the_garbage_collector(garbage: list[object]) -> None:
    """Its memory serves the next request at once, while it is in the processor's cache."""
    site = Site()
    call, relay = site.begin()
    site.up.receive(
        frames.header_block(1, encode(RESPONSE_HEAD), end_stream=False)
        + frames.header(frames.DATA, 0, 1, 6)
        + framed(b"y")
        + frames.header_block(1, encode(Status(code=StatusCode.OK).fields()), end_stream=True)
    )
    relay.cancel()
    call.finish(Status(code=StatusCode.OK))
    del call, relay
    assert [] == _ours(garbage)


async def test_a_request_that_was_cancelled_leaves_nothing_to_the_garbage_collector(garbage: list[object]) -> None:
    """Neither does one whose client goes before the worker has said a word."""
    site = Site()
    call, relay = site.begin()
    site.down.receive(frames.rst_stream(1, ErrorCode.CANCEL))
    relay.cancel()
    del call, relay
    assert [] == _ours(garbage)


async def test_a_connection_that_ended_leaves_nothing_to_the_garbage_collector(garbage: list[object]) -> None:
    """With TLS it has some sixty kilobytes, and clients may come and go by the hundred a second."""
    clock, flusher = time.monotonic, Flusher(asyncio.get_running_loop())
    server = GrpcServer(Endpoint(role=Role.SERVER, clock=clock), {}, flusher=flusher)
    port = await server.listen("127.0.0.1", 0)
    channel = Channel(Endpoint(role=Role.CLIENT, clock=clock), Target(host="127.0.0.1", port=port), flusher=flusher)
    await channel.connect()
    channel.close()
    await server.drain(PATIENCE_S)
    assert [] == _ours(garbage)


async def test_a_client_that_was_lost_while_it_lagged_leaves_nothing_to_the_garbage_collector(
    garbage: list[object],
) -> None:
    """What is held for it waits for its turn on a connection that is no more."""
    site = Site()
    site.down.receive(frames.settings({SettingsFrame.INITIAL_WINDOW_SIZE: 2**20}))
    call, relay = site.begin()
    call.send_frames(bytes(2**17))
    assert 0 < call.held_bytes
    site.down.lose()
    relay.cancel()
    del call, relay, site
    assert [] == _ours(garbage)
