from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.http2_peer import REQUEST, ManualClock, RecordingHandler, ServerUnderTest, resets
from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.fields import Fields, encode
from tidegate.http2.frames import header_block, settings
from tidegate.http2.streams import Stream

_NO_FIELDS: Fields = ()
_REQUEST = tuple((name.encode(), value.encode()) for name, value in REQUEST)
_HEADS: tuple[Fields, ...] = (
    _NO_FIELDS,
    ((b":status", b"200"), (b"content-type", b"application/grpc")),
    ((b":status", b"200"), (b"content-length", b"5")),
    ((b":status", b"103"),),
    ((b":status", b"2x0"),),
    ((b":status", b"200"), (b"a", b" x")),
)
_TRAILERS: tuple[Fields, ...] = (
    _NO_FIELDS,
    ((b"grpc-status", b"0"),),
    ((b"grpc-status", b"0"), (b":path", b"/")),
    ((b"grpc-message", b"x\ny"),),
)
_REQUESTS: tuple[Fields, ...] = (
    _NO_FIELDS,
    _REQUEST,
    (*_REQUEST, (b"content-length", b"0")),
    (*_REQUEST, (b"content-length", b"1")),
    _REQUEST[1:],
    (*_REQUEST, (b"a", b" x")),
)


@given(st.lists(st.sampled_from(_REQUESTS), max_size=8))
def test_a_request_is_judged_alike_however_often_it_has_come(requests: list[Fields]) -> None:
    """What a connection remembers of its latest sections changes no answer."""

    def judged(server: ServerUnderTest, stream_id: int, fields: Fields) -> list[int]:
        server.send(header_block(stream_id, encode(fields), end_stream=True))
        return [code for _, code in resets(server.replies())]

    server = ServerUnderTest()
    for number, fields in enumerate(requests):
        assert judged(ServerUnderTest(), 1, fields) == judged(server, 2 * number + 1, fields)


@given(st.lists(st.tuples(st.sampled_from(_HEADS), st.sampled_from(_TRAILERS)), max_size=8))
def test_a_response_is_judged_alike_however_often_it_has_come(responses: list[tuple[Fields, Fields]]) -> None:
    """So it is with a client's connection, and what its handlers are told."""

    def told(client: Connection, head: Fields, trailers: Fields) -> RecordingHandler:
        handler = RecordingHandler()
        handler.stream = stream = client.open_stream(encode(_REQUEST), handler, end_stream=True)
        client.receive(header_block(stream.id, encode(head), end_stream=False))
        client.receive(header_block(stream.id, encode(trailers), end_stream=True))
        handler.stream = None
        return handler

    kept = _client()
    for head, trailers in responses:
        assert told(_client(), head, trailers) == told(kept, head, trailers)


def _client() -> Connection:
    client = Connection(Endpoint(role=Role.CLIENT, clock=ManualClock()), wake=lambda: None, accept=_refuse)
    client.receive(settings({}))
    return client


def _refuse(stream: Stream, fields: Fields, end_stream: bool) -> RecordingHandler:  # noqa: FBT001 - Acceptor
    raise AssertionError(stream.id, fields, end_stream)
