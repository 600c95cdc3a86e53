from __future__ import annotations

import asyncio
import time

import pytest
from grpc import StatusCode

from tests.fakes.http2_peer import fields_of, read_frames
from tidegate.http2 import frames
from tidegate.http2.connection import Connection
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.errors import ErrorCode, Http2StreamError
from tidegate.http2.fields import Fields, encode
from tidegate.http2.grpc_status import Status
from tidegate.http2.messages import framed
from tidegate.http2.relay import Relay
from tidegate.http2.request_head import parse_head, request_fields
from tidegate.http2.server_call import RESPONSE_HEAD, ServerCall
from tidegate.http2.streams import Stream, StreamHandler

_HEAD = encode(request_fields("/package.Service/Method", authority="localhost", is_tls=False))


class _Site:
    """A client's connection and a worker's, with a request on its way; ``ends_well`` is what its relay is told."""

    def __init__(self, *, ends_well: bool) -> None:
        self._calls: list[ServerCall] = []
        self.down = Connection(Endpoint(role=Role.SERVER, clock=time.monotonic), wake=_nothing, accept=self._accept)
        self.up = Connection(Endpoint(role=Role.CLIENT, clock=time.monotonic), wake=_nothing, accept=_refuse)
        self.down.receive(frames.PREFACE + frames.settings({}))
        self.up.receive(frames.settings({}))
        self.down.receive(frames.header_block(1, _HEAD, end_stream=True))
        self.asked = 0

        def judge() -> bool:
            self.asked += 1
            return ends_well

        self.call = self._calls[0]
        self.relay = Relay(self.call, on_messages=lambda messages: messages, ends_well=judge)
        self.relay.stream = self.up.open_stream(_HEAD, self.relay, end_stream=True)
        self.down.take_output()

    def answer(self, code: StatusCode) -> list[dict[str, str]]:
        """The worker sends one message and ends with ``code``; the field sections that the client gets for it."""
        self.up.receive(
            frames.header_block(1, encode(RESPONSE_HEAD), end_stream=False)
            + frames.header(frames.DATA, 0, 1, 6)
            + framed(b"y")
            + frames.header_block(1, encode(Status(code=code).fields()), end_stream=True)
        )
        got = read_frames(self.down.take_output())
        return [fields_of(frame) for frame in got if frame.type == frames.HEADERS]

    def _accept(self, stream: Stream, fields: Fields, end_stream: bool) -> ServerCall:  # noqa: FBT001 - Acceptor
        head, loop = parse_head(fields, max_list_bytes=2**14), asyncio.get_running_loop()
        call = ServerCall(stream, head, peer="", max_message_bytes=2**20, on_end=lambda call: None, loop=loop)
        if end_stream:
            call.on_headers((), end_stream=True)
        self._calls.append(call)
        return call


def _nothing() -> None:
    pass


def _refuse(stream: Stream, fields: Fields, end_stream: bool) -> StreamHandler:  # noqa: FBT001 - Acceptor
    raise Http2StreamError(stream.id, ErrorCode.REFUSED_STREAM, "no requests here")


async def test_an_answer_that_ends_well_has_its_end_in_the_same_write() -> None:
    """The client need not wait until its call has been settled."""
    site = _Site(ends_well=True)
    assert {"grpc-status": "0"} == site.answer(StatusCode.OK)[-1]
    assert site.call.is_ended
    assert (await site.relay.ended()).is_ok


@pytest.mark.parametrize(("code", "asked"), [(StatusCode.OK, 1), (StatusCode.UNAVAILABLE, 0)])
async def test_any_other_end_is_left_to_the_handler(code: StatusCode, asked: int) -> None:
    """It may ask another worker, or has to tell the client why not."""
    site = _Site(ends_well=False)
    assert [":status"] == [next(iter(fields)) for fields in site.answer(code)]
    assert not site.call.is_ended
    assert (asked, code) == (site.asked, (await site.relay.ended()).code)
