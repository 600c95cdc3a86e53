from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes.http2_peer import REQUEST, RESPONSE, ManualClock, RecordingHandler
from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.errors import ErrorCode
from tidegate.http2.fields import Fields, encode
from tidegate.http2.limits import Limits
from tidegate.http2.messages import MessageReader, framed
from tidegate.http2.metadata import format_timeout, parse_timeout
from tidegate.http2.streams import Stream

_LIMITS = Limits(connection_window_bytes=100_000)
_REQUEST = encode([(name.encode(), value.encode()) for name, value in REQUEST])
_RESPONSE = encode([(name.encode(), value.encode()) for name, value in RESPONSE])
_TRAILERS = encode([(b"grpc-status", b"0")])


@dataclass
class _Side:
    """One direction of one stream: what was sent, and who receives it."""

    stream: Stream
    receiver: RecordingHandler
    sent: bytearray = field(default_factory=bytearray)
    ended: bool = False
    consumed: int = 0


class TwoCores(RuleBasedStateMachine):
    """A client and a server core, with wires between them that cut bytes anywhere and deliver when they like."""

    def __init__(self) -> None:
        super().__init__()
        clock = ManualClock()
        self.accepted: dict[int, RecordingHandler] = {}
        self.client = Connection(
            Endpoint(role=Role.CLIENT, clock=clock, limits=_LIMITS), wake=lambda: None, accept=self._accept
        )
        self.server = Connection(
            Endpoint(role=Role.SERVER, clock=clock, limits=_LIMITS), wake=lambda: None, accept=self._accept
        )
        self.wires = {Role.CLIENT: bytearray(), Role.SERVER: bytearray()}  # by the sender
        self.requests: list[_Side] = []
        self.responses: list[_Side] = []
        self.reset_ids: set[int] = set()

    def _accept(self, stream: Stream, fields: Fields, end_stream: bool) -> RecordingHandler:  # noqa: FBT001 - Acceptor
        handler = RecordingHandler(stream=stream, holds=True)
        handler.ended = end_stream
        self.accepted[stream.id] = handler
        stream.send_headers(_RESPONSE)
        request = next(side for side in self.requests if side.stream.id == stream.id)
        request.receiver = handler
        client_handler = request.stream.handler
        assert isinstance(client_handler, RecordingHandler)
        self.responses.append(_Side(stream, client_handler))
        return handler

    @precondition(lambda self: len(self.requests) < 8)
    @rule()
    def open_stream(self) -> None:
        handler = RecordingHandler(holds=True)
        handler.stream = self.client.open_stream(_REQUEST, handler)
        self.requests.append(_Side(handler.stream, RecordingHandler(holds=True)))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), size=st.one_of(st.integers(0, 500), st.integers(0, 120_000)), end=st.booleans())
    def send(self, data: st.DataObject, size: int, end: bool) -> None:  # noqa: FBT001 - drawn
        side = data.draw(st.sampled_from(self.requests + self.responses))
        if side.ended or side.stream.is_closed:
            return
        payload = random.Random(size).randbytes(size)
        if end and side in self.responses:
            side.stream.send_data(payload)
            side.stream.send_headers(_TRAILERS, end_stream=True)
        else:
            side.stream.send_data(payload, end_stream=end)
        side.sent += payload
        side.ended = end

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        side = data.draw(st.sampled_from(self.requests + self.responses))
        if not side.stream.is_closed:
            side.stream.reset(ErrorCode.CANCEL)
            self.reset_ids.add(side.stream.id)

    @rule(data=st.data(), sender=st.sampled_from(Role))
    def deliver(self, data: st.DataObject, sender: Role) -> None:
        source, target = (self.client, self.server) if sender is Role.CLIENT else (self.server, self.client)
        wire = self.wires[sender]
        wire += source.take_output()
        for _ in range(data.draw(st.integers(1, 4))):
            size = data.draw(st.one_of(st.integers(1, 40), st.just(2**20)))
            piece = bytes(wire[:size])
            del wire[:size]
            if piece:
                target.receive(piece)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def consume(self, data: st.DataObject) -> None:
        side = data.draw(st.sampled_from(self.requests + self.responses))
        self._consume(side)

    @rule(role=st.sampled_from(Role), paused=st.booleans())
    def press(self, role: Role, paused: bool) -> None:  # noqa: FBT001 - drawn
        outbound = (self.client if role is Role.CLIENT else self.server).outbound
        if paused:
            outbound.pause()
        else:
            outbound.resume()

    def _consume(self, side: _Side) -> bool:
        held = len(side.receiver.received) - side.consumed
        if not held or side.receiver.stream is None:
            return False
        side.receiver.stream.consume(held)
        side.consumed += held
        return True

    def _carry(self, sender: Role) -> bool:
        source, target = (self.client, self.server) if sender is Role.CLIENT else (self.server, self.client)
        wire = self.wires[sender] + source.take_output()
        self.wires[sender] = bytearray()
        target.receive(bytes(wire))
        return bool(wire)

    @invariant()
    def windows_are_never_negative(self) -> None:
        for connection in (self.client, self.server):
            assert connection.outbound.window >= 0
            assert all(stream.send_window >= 0 for stream in connection.streams.open.values())

    @invariant()
    def nobody_is_at_fault(self) -> None:
        assert not self.client.is_finished
        assert not self.server.is_finished

    @invariant()
    def what_arrives_is_what_was_sent(self) -> None:
        for side in self.requests + self.responses:
            assert side.sent.startswith(side.receiver.received)
            assert len(side.receiver.received) - side.consumed <= _LIMITS.stream_window_bytes

    def teardown(self) -> None:
        """In the end everything arrives, but for streams that were reset."""
        for connection in (self.client, self.server):
            connection.outbound.resume()
        while any([self._carry(role) for role in Role] + [self._consume(s) for s in self.requests + self.responses]):
            pass
        for side in self.requests + self.responses:
            if side.stream.id not in self.reset_ids:
                assert side.sent == side.receiver.received
                assert side.ended == side.receiver.ended
                assert 0 == side.stream.backlog_bytes
        for connection in (self.client, self.server):
            for stream in connection.streams.open.values():  # all that was taken has been or will be given back
                window = stream.receive_window
                assert _LIMITS.stream_window_bytes == window.available + window.used
        still_open = {side.stream.id for side in self.requests + self.responses if not side.stream.is_closed}
        assert still_open == set(self.client.streams.open) == set(self.server.streams.open)
        assert not still_open & self.reset_ids


TestTwoCores = TwoCores.TestCase
TestTwoCores.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(messages=st.lists(st.binary(max_size=300), max_size=20), cuts=st.lists(st.integers(1, 50), min_size=1))
def test_any_messages_survive_any_cuts(messages: list[bytes], cuts: list[int]) -> None:
    """Length-prefixed messages come out as they went in, however the bytes are cut."""
    wire = b"".join(map(framed, messages))
    reader = MessageReader(300)
    got: list[bytes] = []
    at = turn = 0
    while at < len(wire):
        size = cuts[turn % len(cuts)]
        got += reader.feed(wire[at : at + size])
        at += size
        turn += 1
    assert messages == got


@given(st.floats(min_value=1e-9, max_value=9e7))
def test_a_written_timeout_is_read_again(seconds: float) -> None:
    """The remaining time loses less than a hundred-thousandth of itself, and never grows."""
    value = format_timeout(seconds)
    read = parse_timeout(value)
    assert read is not None
    assert read <= seconds * (1 + 1e-9) or value == b"1n"
    assert read >= seconds * (1 - 1e-4) - 1e-9
