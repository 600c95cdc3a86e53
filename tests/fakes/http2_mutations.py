"""Frames of both ends of a connection, what a fuzzer makes of them, and what must hold whatever comes in."""

from __future__ import annotations

import random

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.fakes.http2_peer import REQUEST, RESPONSE, ManualClock, RecordingHandler, ServerUnderTest, read_frames
from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.errors import ErrorCode, Http2StreamError
from tidegate.http2.fields import Fields, encode
from tidegate.http2.frames import PREFACE
from tidegate.http2.messages import framed
from tidegate.http2.streams import Stream

_REQUEST = encode([(name.encode(), value.encode()) for name, value in REQUEST])


def client_sequence(server: ServerUnderTest) -> list[bytes]:
    """The frames of a client that uses all there is."""
    block = server.encoder.encode(REQUEST)
    frames: list[Frame] = [
        SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1_000, SettingsFrame.MAX_FRAME_SIZE: 20_000}),
        SettingsFrame(flags=["ACK"]),
        HeadersFrame(1, block[:7]),
        ContinuationFrame(1, block[7:], flags=["END_HEADERS"]),
        DataFrame(1, framed(b"first")[:3]),
        DataFrame(1, framed(b"first")[3:], flags=["PADDED"], pad_length=9),
        server.request(3, flags=["PRIORITY"]),
        WindowUpdateFrame(0, 70_000),
        PingFrame(opaque_data=b"01234567"),
        DataFrame(3, framed(bytes(3_000)), flags=["END_STREAM"]),
        PriorityFrame(5, depends_on=3),
        WindowUpdateFrame(3, 50_000),
        HeadersFrame(1, server.encoder.encode([("x-checksum", "1")]), flags=["END_HEADERS", "END_STREAM"]),
        server.request(5, end_stream=True),
        RstStreamFrame(5, ErrorCode.CANCEL),
        SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 100}),
    ]
    return [PREFACE, *(frame.serialize() for frame in frames)]


def server_sequence() -> list[bytes]:
    """The frames of a server that answers three streams."""
    server = ServerUnderTest()
    encoder = server.encoder
    frames: list[Frame] = [
        SettingsFrame(settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 100}),
        SettingsFrame(flags=["ACK"]),
        HeadersFrame(1, encoder.encode([(":status", "103")]), flags=["END_HEADERS"]),
        HeadersFrame(1, encoder.encode(RESPONSE), flags=["END_HEADERS"]),
        DataFrame(1, framed(b"token")),
        DataFrame(1, framed(b"token") * 50, flags=["PADDED"], pad_length=3),
        PingFrame(opaque_data=b"01234567"),
        HeadersFrame(3, encoder.encode([*RESPONSE, ("grpc-status", "8")]), flags=["END_HEADERS", "END_STREAM"]),
        HeadersFrame(1, encoder.encode([("grpc-status", "0")]), flags=["END_HEADERS", "END_STREAM"]),
        RstStreamFrame(5, ErrorCode.REFUSED_STREAM),
    ]
    return [frame.serialize() for frame in frames]


def mutated(rng: random.Random, pieces: list[bytes]) -> bytes:
    """The pieces as they would never come: bits flipped, headers forged, cut, repeated, left out, grown."""
    pieces = list(pieces)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(pieces))
        match rng.randrange(6):
            case 0:  # a bit
                piece = bytearray(pieces[at]) or bytearray(1)
                piece[rng.randrange(len(piece))] ^= 1 << rng.randrange(8)
                pieces[at] = bytes(piece)
            case 1:  # a byte of a frame's header
                piece = bytearray(pieces[at]) or bytearray(1)
                piece[rng.randrange(min(9, len(piece)))] = rng.choice((0, 1, 2, 4, 5, 8, 0x24, 0x7F, 0xFF))
                pieces[at] = bytes(piece)
            case 2:
                pieces[at] = pieces[at][: rng.randrange(len(pieces[at]) + 1)]
            case 3:
                pieces.insert(at, rng.choice(pieces))
            case 4:
                del pieces[at]
                pieces = pieces or [b""]
            case _:
                pieces[at] += rng.randbytes(rng.randrange(20))
    return b"".join(pieces)


def feed(rng: random.Random, connection: Connection, data: bytes) -> bytes:
    """Deliver in two reads, and return what was answered."""
    cut = rng.randrange(len(data) + 1)
    connection.receive(data[:cut])
    connection.receive(data[cut:])
    return connection.take_output()


def check(connection: Connection, output: bytes) -> None:
    """What the core answered is well-formed and bounded, and a lost connection leaves nothing behind."""
    read_frames(output)  # well-formed, or hyperframe raises
    assert len(output) < 200_000
    for stream in connection.streams.open.values():
        assert stream.backlog_bytes <= 100_000
    connection.lose()
    assert not connection.streams.open


def attack_server(rng: random.Random, server: ServerUnderTest, data: bytes) -> None:
    """Whatever a client sends, the server answers with whole frames, ends, and forgets every stream."""
    output = feed(rng, server.connection, data)
    for stream in list(server.connection.streams.open.values()):
        stream.send_headers(encode([(b":status", b"200")]))
        stream.send_data(bytes(2_000))
        stream.send_headers(encode([(b"grpc-status", b"0")]), end_stream=True)
    check(server.connection, output + server.connection.take_output())


def attack_client(rng: random.Random, data: bytes) -> None:
    """The same for what a client makes of a broken server; every call is told of its end exactly once."""
    client = Connection(Endpoint(role=Role.CLIENT, clock=ManualClock()), wake=lambda: None, accept=_refuse)
    handlers = [RecordingHandler() for _ in range(3)]
    for handler in handlers:
        handler.stream = client.open_stream(_REQUEST, handler, end_stream=True)
    check(client, feed(rng, client, data))
    assert all(handler.ended or handler.end is not None for handler in handlers)


def _refuse(stream: Stream, fields: Fields, end_stream: bool) -> RecordingHandler:  # noqa: FBT001 - Acceptor
    raise Http2StreamError(stream.id, ErrorCode.REFUSED_STREAM, "not a server")
