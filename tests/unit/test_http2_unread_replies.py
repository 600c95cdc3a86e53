"""Answers that a peer has not read: a socket that is read when the test says so stands behind the transport."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hpack import Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame

from tests.fakes.clock import ManualClock
from tests.fakes.http2_peer import REQUEST, RecordingHandler
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.fields import Fields, encode
from tidegate.http2.frames import PREFACE
from tidegate.http2.limits import Abuse
from tidegate.http2.streams import Stream, StreamHandler
from tidegate.http2.transport import Flusher, Transport

_STREAMS = 9_000
_ANSWER = encode([(b":status", b"200"), (b"grpc-status", b"14"), (b"grpc-status-details-bin", 400 * b"x")])
_MIB = 2**20


class _Socket:
    """What the event loop would give to the transport."""

    def __init__(self) -> None:
        self.protocol: Transport | None = None
        self.held_bytes = 0
        self.is_aborted = False

    def set_write_buffer_limits(self, **_: int) -> None:
        """Its limits are below what is written here."""

    def get_extra_info(self, _: str) -> None:
        """It tells nothing."""

    def get_write_buffer_size(self) -> int:
        return self.held_bytes

    def write(self, data: bytes) -> None:
        self.held_bytes += len(data)
        if self.held_bytes > _MIB // 16:
            cast("Transport", self.protocol).pause_writing()

    def read(self, size: int) -> None:
        """The peer reads."""
        self.held_bytes = max(0, self.held_bytes - size)
        if not self.held_bytes:
            cast("Transport", self.protocol).resume_writing()

    def abort(self) -> None:
        self.is_aborted = True


class _Server:
    """Owns the transport, and keeps the streams."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.endpoint = Endpoint(role=Role.SERVER, clock=self.clock)
        self.streams: list[Stream] = []
        self.socket = _Socket()
        self.transport = Transport(self.endpoint, Flusher(asyncio.get_running_loop()), self)
        self.socket.protocol = self.transport
        self.transport.connection_made(cast("Any", self.socket))
        encoder = Encoder()
        self.transport.data_received(PREFACE + SettingsFrame().serialize() + SettingsFrame(flags=["ACK"]).serialize())
        for stream_id in range(1, 2 * _STREAMS, 2):
            flags = ["END_HEADERS", "END_STREAM"]
            self.transport.data_received(HeadersFrame(stream_id, encoder.encode(REQUEST), flags=flags).serialize())
        self.socket.read(_MIB)

    def on_made(self, transport: Transport) -> None:
        """As ``Owner.on_made``."""

    def on_lost(self, transport: Transport) -> None:
        """As ``Owner.on_lost``."""

    def on_request(self, transport: Transport, stream: Stream, fields: Fields, *, end_stream: bool) -> StreamHandler:
        self.streams.append(stream)
        return RecordingHandler(stream=stream)

    def answer(self, count: int) -> None:
        """In one turn of the loop."""
        for _ in range(count):
            self.streams.pop().send_headers(_ANSWER, end_stream=True)
        self.transport.flush()

    def tick(self, after_s: float = 1.1) -> None:
        self.clock.advance(after_s)
        self.transport.tick()


async def test_all_streams_may_end_at_once() -> None:
    """Who reads on gets all of the answers, and keeps the stream that goes on."""
    server = _Server()
    server.answer(_STREAMS - 1)
    while server.socket.held_bytes > _MIB:
        server.socket.read(_MIB // 2)
        server.tick()
        assert not server.socket.is_aborted
    server.socket.read(_MIB)
    assert 1 == len(server.transport.connection.streams.open)
    assert not server.endpoint.tally


async def test_a_peer_that_reads_nothing_is_cut_off() -> None:
    """Within a few seconds, whatever there is to say meanwhile."""
    server = _Server()
    server.answer(_STREAMS // 2)
    server.tick(1.0)
    assert not server.socket.is_aborted
    server.answer(1)
    server.tick()
    assert server.socket.is_aborted
    assert 1 == server.endpoint.tally[Abuse.UNREAD_REPLIES]


async def test_a_little_that_is_not_read_may_wait() -> None:
    """A client may be slow; what it costs is bounded."""
    server = _Server()
    server.answer(1_000)
    for _ in range(5):
        server.tick()
    assert not server.socket.is_aborted
