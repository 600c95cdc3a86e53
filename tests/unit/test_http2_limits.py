from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
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

from tests.fakes.http2_peer import REQUEST, ManualClock, ServerUnderTest, resets
from tidegate.http2.errors import ErrorCode
from tidegate.http2.limits import Abuse, Allowance, Budget, Limits

Flood = Callable[[ServerUnderTest], Iterator[list[Frame]]]
_TOO_MANY = 100_000


def _repeat(*frames: Frame) -> Iterator[list[Frame]]:
    for _ in range(_TOO_MANY):
        yield list(frames)


def _rapid_reset(server: ServerUnderTest) -> Iterator[list[Frame]]:
    for stream_id in range(1, 2 * _TOO_MANY, 2):
        yield [server.request(stream_id), RstStreamFrame(stream_id, ErrorCode.CANCEL)]


def _made_you_reset(server: ServerUnderTest) -> Iterator[list[Frame]]:
    for stream_id in range(1, 2 * _TOO_MANY, 2):
        yield [server.request(stream_id, end_stream=True), DataFrame(stream_id, b"x")]


def _empty_data(server: ServerUnderTest) -> Iterator[list[Frame]]:
    server.send(server.request())
    return _repeat(DataFrame(1, b""))


def _padded_nothing(server: ServerUnderTest) -> Iterator[list[Frame]]:
    server.send(server.request())
    return _repeat(DataFrame(1, b"", flags=["PADDED"], pad_length=1))


def _continuations(server: ServerUnderTest) -> Iterator[list[Frame]]:
    server.send(HeadersFrame(1, b""))
    return _repeat(ContinuationFrame(1, b""))


def _continuation_bytes(server: ServerUnderTest) -> Iterator[list[Frame]]:
    server.send(HeadersFrame(1, b""))
    return _repeat(ContinuationFrame(1, bytes(16_384)))


def _streams(server: ServerUnderTest) -> Iterator[list[Frame]]:
    for stream_id in range(1, 2 * _TOO_MANY, 2):
        yield [server.request(stream_id)]


def _header_bomb(server: ServerUnderTest) -> Iterator[list[Frame]]:
    yield [server.request(1, fields=[*REQUEST, ("x", "v" * 3_000)])]
    yield [HeadersFrame(3, b"\xbe" * 1_000, flags=["END_HEADERS"])]  # a thousand references to that one field


FLOODS: dict[str, tuple[Abuse, Flood]] = {
    "rapid reset": (Abuse.RAPID_RESET, _rapid_reset),
    "made you reset": (Abuse.RAPID_RESET, _made_you_reset),
    "empty CONTINUATION": (Abuse.CONTINUATION_FLOOD, _continuations),
    "long CONTINUATION": (Abuse.CONTINUATION_FLOOD, _continuation_bytes),
    "PING": (Abuse.PING_FLOOD, lambda s: _repeat(PingFrame())),
    "SETTINGS": (Abuse.SETTINGS_FLOOD, lambda s: _repeat(SettingsFrame())),
    "SETTINGS ack": (Abuse.SETTINGS_FLOOD, lambda s: _repeat(SettingsFrame(flags=["ACK"]))),
    "empty DATA": (Abuse.EMPTY_FRAME_FLOOD, _empty_data),
    "DATA of padding alone": (Abuse.EMPTY_FRAME_FLOOD, _padded_nothing),
    "WINDOW_UPDATE": (Abuse.WINDOW_UPDATE_FLOOD, lambda s: _repeat(WindowUpdateFrame(0, 1))),
    "PRIORITY": (Abuse.IGNORED_FRAME_FLOOD, lambda s: _repeat(PriorityFrame(1, depends_on=3))),
    "streams beyond the limit": (Abuse.TOO_MANY_STREAMS, _streams),
    "header bomb": (Abuse.OVERSIZE_HEADER_LIST, _header_bomb),
}


@pytest.mark.parametrize(("abuse", "flood"), FLOODS.values(), ids=FLOODS)
def test_flood_ends_the_connection_and_is_named(abuse: Abuse, flood: Flood) -> None:
    """A peer that goes on with frames that cost it nothing is disconnected, and the tally says what for."""
    server = ServerUnderTest()
    spent = 0
    for frames in flood(server):
        server.send(*frames)
        server.connection.take_output()
        spent += 1
        if server.connection.is_finished:
            break
    assert server.connection.is_finished
    assert spent < _TOO_MANY
    assert server.tally[abuse] >= 1
    assert {} == server.connection.streams.open


def test_resets_of_streams_that_run_are_no_flood() -> None:
    """However many a client, or a proxy's client, leaves at once; those for which nothing was done yet are counted."""
    server = ServerUnderTest()
    ids = range(1, 10_000, 2)
    for stream_id in ids:
        server.send(server.request(stream_id, end_stream=True))
        server.connection.streams.open[stream_id].send_headers(b"\x88")
    server.send(*(RstStreamFrame(stream_id, ErrorCode.CANCEL) for stream_id in ids))
    assert not server.connection.is_finished
    assert not server.connection.streams.open


def test_pings_that_answer_data_are_no_flood() -> None:
    """So a client estimates the bandwidth; on a short way, for each token. Others are counted meanwhile, too."""
    server = ServerUnderTest()
    server.send(server.request(1))
    stream = server.connection.streams.open[1]
    ping = PingFrame(opaque_data=b"estimate")
    for _ in range(3_000):
        stream.send_data(b"token")
        server.send(WindowUpdateFrame(0, 5), WindowUpdateFrame(1, 5), ping)
        assert ["DataFrame", "PingFrame"] == [type(frame).__name__ for frame in server.replies()]
    spent = 0
    while not server.connection.is_finished:
        stream.send_data(b"token")
        server.send(WindowUpdateFrame(0, 5), WindowUpdateFrame(1, 5), ping, ping)
        server.connection.take_output()
        spent += 1
    assert Limits().pings.burst + 1 == spent


def test_budget_refills_with_time() -> None:
    """An honest peer's frames are paid for by time."""
    clock = ManualClock()
    budget = Budget(Allowance(burst=2, per_s=1.0), clock)
    assert [True, True, False] == [budget.spend() for _ in range(3)]
    clock.advance(1.0)
    assert [True, False] == [budget.spend() for _ in range(2)]
    clock.advance(100.0)
    assert [True, True, False] == [budget.spend() for _ in range(3)]


def test_streams_beyond_the_limit_are_refused_and_retryable() -> None:
    """REFUSED_STREAM says that nothing was done, and the others go on."""
    server = ServerUnderTest(Limits(max_concurrent_streams=2))
    server.send(server.request(1), server.request(3), server.request(5))
    assert [(5, ErrorCode.REFUSED_STREAM)] == resets(server.replies())
    assert 1 == server.tally[Abuse.TOO_MANY_STREAMS]
    server.connection.streams.open[1].reset(ErrorCode.CANCEL)
    server.replies()
    server.send(server.request(7))
    assert [1, 3, 7] == list(server.handlers)


@pytest.mark.parametrize(("seconds", "abuse"), [(9.0, None), (11.0, Abuse.SLOW_PREFACE)], ids=["in time", "too late"])
def test_preface_has_to_come_in_time(seconds: float, abuse: Abuse | None) -> None:
    """A client that connects and says nothing is disconnected."""
    server = ServerUnderTest(handshake=False)
    server.clock.advance(seconds)
    server.connection.tick()
    assert (abuse is not None) == server.connection.is_finished
    assert ({abuse: 1} if abuse else {}) == server.tally


def test_field_section_has_to_end_in_time() -> None:
    """A client that drips CONTINUATIONs is disconnected."""
    server = ServerUnderTest()
    server.send(HeadersFrame(1, b""))
    for _ in range(6):
        server.clock.advance(2.0)
        server.send(ContinuationFrame(1, b""))
        server.connection.tick()
    assert server.connection.is_finished
    assert {Abuse.SLOW_HEADERS: 1} == server.tally


def test_settings_have_to_be_acknowledged() -> None:
    """A peer that never takes our SETTINGS over is disconnected (RFC 9113, section 6.5.3)."""
    server = ServerUnderTest(handshake=False)
    server.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SettingsFrame())
    server.clock.advance(21.0)
    server.connection.tick()
    goaway = server.goaway()
    assert goaway is not None
    assert ErrorCode.SETTINGS_TIMEOUT == goaway.error_code


def test_silent_peer_is_pinged_and_then_given_up() -> None:
    """A connection whose other end has vanished is noticed without traffic."""
    server = ServerUnderTest()
    server.clock.advance(21.0)
    server.connection.tick()
    (ping,) = server.replies()
    assert isinstance(ping, PingFrame)
    server.clock.advance(9.0)
    server.connection.tick()
    assert not server.connection.is_finished
    server.clock.advance(2.0)
    server.connection.tick()
    assert server.connection.is_finished


def test_answered_keepalive_starts_anew() -> None:
    """Whatever the peer sends shows that it is there."""
    server = ServerUnderTest()
    for _ in range(5):
        server.clock.advance(21.0)
        server.connection.tick()
        (ping,) = server.replies()
        assert isinstance(ping, PingFrame)
        server.send(PingFrame(opaque_data=ping.opaque_data, flags=["ACK"]))
    assert not server.connection.is_finished
