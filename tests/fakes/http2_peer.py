"""The other end of an HTTP/2 connection, byte by byte: builds frames with hyperframe and reads what comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.exchanges import Acceptor
from tidegate.http2.fields import Fields
from tidegate.http2.frames import PREFACE
from tidegate.http2.limits import AbuseTally, Limits
from tidegate.http2.streams import Stream, StreamEnd

REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Service/Method"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
RESPONSE = ((":status", "200"), ("content-type", "application/grpc"))


class ManualClock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class RecordingHandler:
    """Keeps what a stream is told, and gives bytes back at once unless ``holds``."""

    stream: Stream | None = None
    holds: bool = False
    sections: list[tuple[Fields, bool]] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    ended: bool = False
    end: StreamEnd | None = None
    sent_bytes: int = 0

    def on_headers(self, fields: Fields, *, end_stream: bool) -> None:
        self.sections.append((fields, end_stream))
        self.ended |= end_stream

    def on_data(self, payload: bytes, *, end_stream: bool) -> None:
        self.received += payload
        self.ended |= end_stream
        if not self.holds and self.stream is not None:
            self.stream.consume(len(payload))

    def on_sent(self, size: int) -> None:
        self.sent_bytes += size

    def on_end(self, end: StreamEnd) -> None:
        assert self.end is None
        self.end = end


class ServerUnderTest:
    """A server's core with a raw client in front of it."""

    def __init__(self, limits: Limits | None = None, *, handshake: bool = True, accept: Acceptor | None = None) -> None:
        self.clock = ManualClock()
        self.tally = AbuseTally()
        self.handlers: dict[int, RecordingHandler] = {}
        self.holds = False
        self.encoder = Encoder()
        endpoint = Endpoint(role=Role.SERVER, clock=self.clock, limits=limits or Limits(), tally=self.tally)
        self.connection = Connection(endpoint, wake=lambda: None, accept=accept or self._accept)
        if handshake:
            self.send(PREFACE, SettingsFrame(), SettingsFrame(flags=["ACK"]))
            self.replies()

    def _accept(self, stream: Stream, fields: Fields, end_stream: bool) -> RecordingHandler:  # noqa: FBT001 - Acceptor
        handler = RecordingHandler(stream=stream, holds=self.holds)
        handler.on_headers(fields, end_stream=end_stream)
        self.handlers[stream.id] = handler
        return handler

    def send(self, *frames: Frame | bytes) -> None:
        self.connection.receive(b"".join(f if isinstance(f, bytes) else f.serialize() for f in frames))

    def request(
        self,
        stream_id: int = 1,
        *,
        fields: Sequence[tuple[str, str]] = REQUEST,
        end_stream: bool = False,
        flags: Sequence[str] = (),
        pad_length: int = 0,
    ) -> HeadersFrame:
        all_flags = ["END_HEADERS", *flags, *(["END_STREAM"] if end_stream else [])]
        return HeadersFrame(stream_id, self.encoder.encode(fields), flags=all_flags, pad_length=pad_length)

    def replies(self) -> list[Frame]:
        return read_frames(self.connection.take_output())

    def goaway(self) -> GoAwayFrame | None:
        return next((f for f in self.replies() if isinstance(f, GoAwayFrame)), None)


def read_frames(data: bytes) -> list[Frame]:
    """Every frame of ``data``, which must hold whole ones; a client's preface is skipped."""
    view = memoryview(data.removeprefix(PREFACE))
    frames = []
    while view:
        frame, length = Frame.parse_frame_header(view[:9])
        frame.parse_body(view[9 : 9 + length])
        frames.append(frame)
        view = view[9 + length :]
    return frames


def resets(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    """(stream, code) of each RST_STREAM."""
    return [(f.stream_id, f.error_code) for f in frames if isinstance(f, RstStreamFrame)]


def fields_of(frame: Frame, decoder: Decoder | None = None) -> dict[str, str]:
    """The fields of a HEADERS frame."""
    assert isinstance(frame, HeadersFrame)
    return {str(name): str(value) for name, value in (decoder or Decoder()).decode(frame.data)}


def connect_cores(
    client: Connection, server: Connection, *, cut: Callable[[bytes], Sequence[bytes]] = lambda data: (data,)
) -> None:
    """Carry bytes between two cores until both are silent."""
    while True:
        to_server, to_client = client.take_output(), server.take_output()
        if not to_server and not to_client:
            return
        for piece in cut(to_server):
            server.receive(piece)
        for piece in cut(to_client):
            client.receive(piece)
