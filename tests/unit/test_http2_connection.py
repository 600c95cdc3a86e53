from __future__ import annotations

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.fakes.http2_peer import (
    REQUEST,
    RESPONSE,
    ManualClock,
    RecordingHandler,
    ServerUnderTest,
    connect_cores,
    fields_of,
    read_frames,
    resets,
)
from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.errors import ErrorCode, Http2StreamError
from tidegate.http2.fields import Fields, encode
from tidegate.http2.frames import MAX_STREAM_ID, PREFACE
from tidegate.http2.streams import EndCause, Stream

_REQUEST = [(name.encode(), value.encode()) for name, value in REQUEST]
_RESPONSE = [(name.encode(), value.encode()) for name, value in RESPONSE]


def _refuse(stream: Stream, fields: Fields, end_stream: bool) -> RecordingHandler:  # noqa: FBT001 - Acceptor
    raise Http2StreamError(stream.id, ErrorCode.REFUSED_STREAM, "not a server")


def _client(clock: ManualClock | None = None) -> Connection:
    return Connection(Endpoint(role=Role.CLIENT, clock=clock or ManualClock()), wake=lambda: None, accept=_refuse)


def test_settings_are_announced_and_acknowledged() -> None:
    """Both sides send SETTINGS first, and answer the other's with an acknowledgement."""
    server = ServerUnderTest(handshake=False)
    first = server.replies()[0]
    assert isinstance(first, SettingsFrame)
    assert 65_535 == first.settings[SettingsFrame.INITIAL_WINDOW_SIZE]
    server.send(PREFACE, SettingsFrame(settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 7}))
    acks = [f for f in server.replies() if isinstance(f, SettingsFrame)]
    assert [{"ACK"}] == [set(f.flags) for f in acks]
    assert 7 == server.connection.session.peer.max_concurrent_streams


def test_preface_may_arrive_byte_by_byte() -> None:
    """Nothing is said about how bytes are cut into reads."""
    server = ServerUnderTest(handshake=False)
    for byte in PREFACE + SettingsFrame().serialize() + server.request(1, end_stream=True).serialize():
        server.send(bytes((byte,)))
    assert server.handlers[1].ended


def test_request_in_continuations_with_padding_and_priority() -> None:
    """A field section may be cut anywhere, and padding and priority are taken off."""
    server = ServerUnderTest()
    block = server.encoder.encode(REQUEST)
    head = HeadersFrame(1, block[:5], flags=["PADDED", "PRIORITY"], pad_length=7, depends_on=0)
    server.send(head, ContinuationFrame(1, block[5:9]), ContinuationFrame(1, block[9:], flags=["END_HEADERS"]))
    assert dict(_REQUEST) == dict(server.handlers[1].sections[0][0])


def test_padding_of_data_is_taken_off_and_given_back() -> None:
    """Padding counts against the window, and nobody holds it."""
    server = ServerUnderTest()
    server.send(server.request())
    for _ in range(300):
        server.send(DataFrame(1, b"x", flags=["PADDED"], pad_length=255))
    assert 300 == len(server.handlers[1].received)
    widened = sum(f.window_increment for f in server.replies() if isinstance(f, WindowUpdateFrame) and f.stream_id == 1)
    assert widened > 300 * 257 - 65_535


def test_window_update_is_withheld_while_bytes_are_held() -> None:
    """A stream's window is given back when its bytes are consumed, not when they are received."""
    server = ServerUnderTest()
    server.holds = True
    server.send(server.request(), DataFrame(1, bytes(16_384)), DataFrame(1, bytes(16_384)), DataFrame(1, bytes(16_384)))
    assert [] == [f for f in server.replies() if f.stream_id == 1]
    server.connection.streams.open[1].consume(40_000)
    update = server.replies()[0]
    assert isinstance(update, WindowUpdateFrame)
    assert (1, 40_000) == (update.stream_id, update.window_increment)


def test_data_waits_for_the_streams_window_and_trailers_wait_for_data() -> None:
    """What the window does not allow stays in the backlog, in order, with the end behind it."""
    server = ServerUnderTest()
    server.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 10}), server.request(end_stream=True))
    server.replies()
    stream = server.connection.streams.open[1]
    stream.send_headers(encode(_RESPONSE))
    assert not stream.send_data(b"0123456789abcdef")
    stream.send_headers(encode([(b"grpc-status", b"0")]), end_stream=True)
    sent = server.replies()
    assert [b"0123456789"] == [f.data for f in sent if isinstance(f, DataFrame)]
    assert 6 == stream.backlog_bytes
    server.send(WindowUpdateFrame(1, 100))
    data, trailers = server.replies()
    assert isinstance(data, DataFrame)
    assert b"abcdef" == data.data
    assert {"grpc-status": "0"} == fields_of(trailers)
    assert 16 == server.handlers[1].sent_bytes
    assert stream.is_closed


def test_streams_take_turns_on_the_connections_window() -> None:
    """One large answer does not starve a small one."""
    server = ServerUnderTest()
    server.send(
        SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**20}),
        server.request(1, end_stream=True),
        server.request(3, end_stream=True),
    )
    server.replies()
    large, small = (server.connection.streams.open[i] for i in (1, 3))
    large.send_data(bytes(200_000))
    small.send_data(bytes(1_000))
    server.replies()
    server.send(WindowUpdateFrame(0, 20_000))
    assert [1, 3] == [f.stream_id for f in server.replies() if isinstance(f, DataFrame)][:2]
    assert 0 == small.backlog_bytes


def test_narrowed_window_may_be_negative_and_recovers() -> None:
    """SETTINGS may take back what was granted (RFC 9113, section 6.9.2)."""
    server = ServerUnderTest()
    server.send(server.request(end_stream=True))
    stream = server.connection.streams.open[1]
    assert stream.send_data(bytes(1_000))
    server.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 500}))
    assert -500 == stream.send_window
    server.replies()
    assert not stream.send_data(b"x")
    server.send(WindowUpdateFrame(1, 500))
    assert [] == server.replies()
    server.send(WindowUpdateFrame(1, 1))
    assert 1 == len(server.replies())


def test_paused_transport_holds_data_but_not_control_frames() -> None:
    """A socket that does not keep up stops DATA; answers to PING go on."""
    server = ServerUnderTest()
    server.send(server.request(end_stream=True))
    server.connection.outbound.pause()
    assert not server.connection.streams.open[1].send_data(b"later")
    server.send(PingFrame(opaque_data=b"12345678"))
    (pong,) = server.replies()
    assert isinstance(pong, PingFrame)
    assert ({"ACK"}, b"12345678") == (set(pong.flags), pong.opaque_data)
    server.connection.outbound.resume()
    assert [b"later"] == [f.data for f in server.replies() if isinstance(f, DataFrame)]


def test_drain_names_the_last_stream_after_a_round_trip() -> None:
    """Requests that cross the first GOAWAY are served; later ones are refused; then the connection closes."""
    server = ServerUnderTest()
    server.send(server.request(1))
    server.connection.session.drain()
    first, ping = server.replies()
    assert isinstance(first, GoAwayFrame)
    assert isinstance(ping, PingFrame)
    assert (MAX_STREAM_ID, ErrorCode.NO_ERROR) == (first.last_stream_id, first.error_code)
    server.send(server.request(3), PingFrame(opaque_data=ping.opaque_data, flags=["ACK"]))
    (second,) = server.replies()
    assert isinstance(second, GoAwayFrame)
    assert 3 == second.last_stream_id
    server.send(server.request(5))
    assert [(5, ErrorCode.REFUSED_STREAM)] == resets(server.replies())
    assert [1, 3] == list(server.handlers)
    for stream in list(server.connection.streams.open.values()):
        stream.reset(ErrorCode.CANCEL)
    assert server.connection.is_finished


def test_drain_does_not_wait_for_a_silent_client() -> None:
    """The second GOAWAY follows after a second even without an answer to the PING."""
    server = ServerUnderTest()
    server.connection.session.drain()
    server.clock.advance(1.1)
    server.connection.tick()
    assert server.connection.is_finished


def test_client_learns_from_goaway_what_was_not_processed() -> None:
    """Streams above the last one may be tried elsewhere; the others go on, and then the connection closes."""
    client = _client()
    handlers = [RecordingHandler() for _ in range(2)]
    streams = [client.open_stream(encode(_REQUEST), handler, end_stream=True) for handler in handlers]
    client.receive(SettingsFrame().serialize() + GoAwayFrame(last_stream_id=1).serialize())
    assert handlers[0].end is None
    assert handlers[1].end is not None
    assert EndCause.REFUSED is handlers[1].end.cause
    assert not client.session.can_open
    assert not client.is_finished
    streams[0].reset(ErrorCode.CANCEL)
    assert client.is_finished


def test_client_respects_max_concurrent_streams() -> None:
    """A client asks before it opens one more."""
    client = _client()
    client.receive(SettingsFrame(settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 1}).serialize())
    assert client.session.can_open
    stream = client.open_stream(encode(_REQUEST), RecordingHandler())
    assert not client.session.can_open
    stream.reset(ErrorCode.CANCEL)
    assert client.session.can_open


def test_interim_response_is_skipped() -> None:
    """A 1xx head is followed by the real one (RFC 9113, section 8.1)."""
    client, server = _client(), ServerUnderTest(handshake=False)
    handler = RecordingHandler()
    client.open_stream(encode(_REQUEST), handler, end_stream=True)
    connect_cores(client, server.connection)
    stream = server.connection.streams.open[1]
    stream.send_headers(encode([(b":status", b"103")]))
    stream.send_headers(encode(_RESPONSE))
    stream.send_headers(encode([(b"grpc-status", b"0")]), end_stream=True)
    connect_cores(client, server.connection)
    assert [dict(_RESPONSE), {b"grpc-status": b"0"}] == [dict(fields) for fields, _ in handler.sections]


def test_reset_reaches_the_other_side_with_its_code() -> None:
    """RST_STREAM ends a stream on both sides, once."""
    client, server = _client(), ServerUnderTest(handshake=False)
    stream = client.open_stream(encode(_REQUEST), RecordingHandler())
    connect_cores(client, server.connection)
    stream.reset(ErrorCode.CANCEL)
    connect_cores(client, server.connection)
    end = server.handlers[1].end
    assert end is not None
    assert (EndCause.RESET_BY_PEER, ErrorCode.CANCEL) == (end.cause, end.code)
    assert not server.connection.streams.open


def test_lost_socket_ends_every_stream() -> None:
    """When the socket goes, every stream is told."""
    server = ServerUnderTest()
    server.send(server.request(1), server.request(3))
    server.connection.lose()
    assert [EndCause.CONNECTION_LOST] * 2 == [h.end.cause for h in server.handlers.values() if h.end is not None]


def test_large_field_section_is_sent_in_continuations() -> None:
    """No frame is longer than every peer must take."""
    client, server = _client(), ServerUnderTest(handshake=False)
    fields = [*_REQUEST, *((b"x-%d" % i, b"v" * 2_000) for i in range(15))]
    client.open_stream(encode(fields), RecordingHandler(), end_stream=True)
    connect_cores(client, server.connection)
    assert dict(fields) == dict(server.handlers[1].sections[0][0])


def test_reset_by_the_peer_drops_the_backlog() -> None:
    """Nothing is held for a stream that is gone."""
    server = ServerUnderTest()
    server.send(server.request())
    stream = server.connection.streams.open[1]
    stream.send_data(bytes(200_000))
    server.send(RstStreamFrame(1, ErrorCode.CANCEL), WindowUpdateFrame(0, 2**20))
    assert 0 == stream.backlog_bytes
    assert stream.send_data(b"into the void")


def test_a_stream_may_end_while_settings_widen_all_windows() -> None:
    """What its window held back was the last of an answer; the connection and its other streams go on."""
    server = ServerUnderTest()
    server.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 10}))
    for number in (1, 3):
        server.send(server.request(number, end_stream=True))
        stream = server.connection.streams.open[number]
        stream.send_headers(encode(_RESPONSE))
        stream.send_data(bytes(20))
        stream.send_headers(encode([(b"grpc-status", b"0")]), end_stream=True)
    server.replies()
    server.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 100}))
    ended = [f.stream_id for f in server.replies() if "END_STREAM" in f.flags]
    assert [1, 3] == ended
    assert not server.connection.streams.open


def test_answers_that_cross_thousands_of_resets_are_no_fault() -> None:
    """A client may give up all that it has open; what it opens next goes on."""
    client, encoder = _client(), Encoder()
    client.receive(SettingsFrame().serialize())
    streams = [client.open_stream(encode(_REQUEST), RecordingHandler(), end_stream=True) for _ in range(3000)]
    for stream in streams:
        stream.reset(ErrorCode.CANCEL)
    handler = RecordingHandler()
    client.open_stream(encode(_REQUEST), handler, end_stream=True)
    client.take_output()
    for stream in streams:
        head = HeadersFrame(stream.id, encoder.encode(RESPONSE), flags=["END_HEADERS"])
        client.receive(head.serialize() + DataFrame(stream.id, b"late").serialize())
    assert [] == resets(read_frames(client.take_output()))
    assert client.session.can_open
    assert handler.end is None


def test_a_server_may_reset_all_that_it_is_asked() -> None:
    """Who has others' streams on the same connection must not lose them for it."""
    client = _client()
    client.receive(SettingsFrame().serialize())
    handler = RecordingHandler()
    client.open_stream(encode(_REQUEST), handler)
    for _ in range(3000):
        stream = client.open_stream(encode(_REQUEST), RecordingHandler())
        client.receive(RstStreamFrame(stream.id, ErrorCode.NO_ERROR).serialize())
    assert client.session.can_open
    assert handler.end is None


def test_a_server_that_is_not_heard_of_is_lost() -> None:
    """And has broken no rule: what ran there may be tried elsewhere."""
    clock, handler = ManualClock(), RecordingHandler()
    client = _client(clock)
    client.receive(SettingsFrame().serialize() + SettingsFrame(flags=["ACK"]).serialize())
    client.open_stream(encode(_REQUEST), handler, end_stream=True)
    for seconds in (21.0, 11.0):
        clock.advance(seconds)
        client.tick()
    assert handler.end is not None
    assert EndCause.CONNECTION_LOST is handler.end.cause
