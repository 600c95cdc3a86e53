from __future__ import annotations

import asyncio

from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from tests.fakes.clock import leap
from tests.fakes.http2_peer import RESPONSE, ServerUnderTest, resets
from tidegate.http2.errors import ErrorCode
from tidegate.http2.fields import encode
from tidegate.http2.linger import Unread

_TIMEOUT_S = 30.0


def _answered() -> ServerUnderTest:
    """Of the answer to its only request, 20 bytes and the end are held for the client."""
    server = ServerUnderTest()
    server.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}), server.request(1))
    stream = server.connection.streams.open[1]
    stream.send_headers(encode([(name.encode(), value.encode()) for name, value in RESPONSE]))
    stream.send_data(bytes(20))
    stream.send_headers(encode([(b"grpc-status", b"0")]), end_stream=True)
    Unread(stream, _TIMEOUT_S)
    server.replies()
    return server


async def _pass(seconds: float) -> None:
    leap(seconds)
    for _ in range(3):
        await asyncio.sleep(0)


async def test_an_answer_that_nobody_takes_is_given_up() -> None:
    """A client that takes some of it now and then is waited for; one that has stopped is not."""
    server = _answered()
    for _ in range(10):
        await _pass(0.9 * _TIMEOUT_S)
        server.send(WindowUpdateFrame(1, 1))
    assert [] == resets(server.replies())
    await _pass(_TIMEOUT_S)  # in which the last byte was taken
    await _pass(_TIMEOUT_S)
    assert [(1, ErrorCode.CANCEL)] == resets(server.replies())
    assert not server.connection.streams.open


async def test_an_answer_that_is_taken_late_is_whole() -> None:
    """Its end comes behind it, and then the client is asked for no more of its request."""
    server = _answered()
    await _pass(0.9 * _TIMEOUT_S)
    server.send(WindowUpdateFrame(1, 20))
    (end,) = (frame for frame in server.replies() if "END_STREAM" in frame.flags)
    assert 1 == end.stream_id
    await _pass(_TIMEOUT_S)
    assert [(1, ErrorCode.NO_ERROR)] == resets(server.replies())


async def test_a_client_that_is_lost_meanwhile_leaves_nothing() -> None:
    """Nothing is said to it."""
    server = _answered()
    server.connection.lose()
    await _pass(2 * _TIMEOUT_S)
    assert [] == server.replies()
