"""The same cases, after grpc's interop list, for every client and every way to the service.

A module that has a fixture ``setup`` imports them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from grpc import StatusCode

from tests.fakes.http2_callers import Caller
from tests.fakes.http2_service import SERVICE, Observations
from tests.fakes.patience import PATIENCE_S
from tidegate.http2.server import GrpcServer


@dataclass
class Setup:
    """A service that is up, a client, and what the service has seen."""

    caller: Caller
    seen: Observations
    server: GrpcServer | None
    drain: Callable[[float], Awaitable[None]]

    async def until_cancelled(self) -> None:
        await self.seen.until(lambda: self.seen.cancelled > 0)


async def test_empty_message(setup: Setup) -> None:
    """A message of no bytes is a message."""
    outcome = await setup.caller.call(SERVICE + "Unary", [b""])
    assert (StatusCode.OK, [b""]) == (outcome.code, outcome.received)


async def test_large_messages(setup: Setup) -> None:
    """A megabyte in each direction, far above every window."""
    outcome = await setup.caller.call(SERVICE + "Unary", [bytes(range(256)) * 4096])
    assert (StatusCode.OK, [bytes(range(256)) * 4096]) == (outcome.code, outcome.received)


async def test_server_streaming(setup: Setup) -> None:
    """Many messages of many sizes arrive in order."""
    for size in (0, 1, 16_375, 16_376, 70_000):
        metadata = (("x-count", "20"), ("x-size", str(size)))
        outcome = await setup.caller.call(SERVICE + "ServerStream", metadata=metadata)
        assert StatusCode.OK is outcome.code
        assert [b"%d" % n + bytes(size) for n in range(20)] == outcome.received


async def test_client_streaming(setup: Setup) -> None:
    """The server sees every message and the half-close."""
    outcome = await setup.caller.call(SERVICE + "ClientStream", [bytes(n * 1000) for n in range(100)])
    assert (StatusCode.OK, [b"100 of 4950000"]) == (outcome.code, outcome.received)


async def test_ping_pong(setup: Setup) -> None:
    """Messages cross in both directions on one stream."""
    requests = [bytes((n,)) * n * 37 for n in range(100)]
    outcome = await setup.caller.call(SERVICE + "Bidi", requests)
    assert (StatusCode.OK, requests) == (outcome.code, outcome.received)


async def test_empty_stream(setup: Setup) -> None:
    """A half-close at once is a complete request of a streaming method."""
    outcome = await setup.caller.call(SERVICE + "Bidi", [])
    assert (StatusCode.OK, []) == (outcome.code, outcome.received)


async def test_cancel_before_first_response(setup: Setup) -> None:
    """The handler is cancelled when the client gives up."""
    started = setup.seen.until(lambda: setup.seen.started > 0)
    outcome = await setup.caller.call(SERVICE + "Hang", cancel_when=started)
    assert StatusCode.CANCELLED is outcome.code
    await setup.until_cancelled()


async def test_cancel_after_first_response(setup: Setup) -> None:
    """A stream that is cancelled halfway ends at the server too."""
    metadata = (("x-count", "1000000"), ("x-pause", "0.001"))
    outcome = await setup.caller.call(SERVICE + "ServerStream", metadata=metadata, cancel_after=1)
    assert StatusCode.CANCELLED is outcome.code
    await setup.until_cancelled()


async def test_deadline_before_first_response(setup: Setup) -> None:
    """The deadline ends the call at both sides."""
    outcome = await setup.caller.call(SERVICE + "Hang", timeout_s=0.1)
    assert StatusCode.DEADLINE_EXCEEDED is outcome.code
    await setup.seen.until(lambda: setup.seen.cancelled == setup.seen.started)


async def test_deadline_mid_stream(setup: Setup) -> None:
    """What came before the deadline counts; on a busy machine it may have to be a longer one for anything to come."""
    metadata = (("x-count", "1000000"), ("x-pause", "0.001"))
    for timeout_s in (0.2, 2, 20):
        outcome = await setup.caller.call(SERVICE + "ServerStream", metadata=metadata, timeout_s=timeout_s)
        assert StatusCode.DEADLINE_EXCEEDED is outcome.code
        if outcome.received:
            break
    assert outcome.received
    await setup.seen.until(lambda: setup.seen.cancelled == setup.seen.started)


@pytest.mark.parametrize("message", ["test status message", "\t\ntest with whitespace\r\nand Unicode BMP ☺ and 😈\t\n"])
async def test_status_code_and_message(setup: Setup, message: str) -> None:
    """Code and message arrive as they were given."""
    metadata = (("x-code", "NOT_FOUND"), ("x-message-bin", message.encode()))
    outcome = await setup.caller.call(SERVICE + "Unary", metadata=metadata)
    assert (StatusCode.NOT_FOUND, message, []) == (outcome.code, outcome.message, outcome.received)


async def test_status_after_messages(setup: Setup) -> None:
    """An error in the middle of a stream comes after what was sent."""
    metadata = (("x-code", "DATA_LOSS"), ("x-count", "3"))
    outcome = await setup.caller.call(SERVICE + "ServerStream", metadata=metadata)
    assert (StatusCode.DATA_LOSS, [b"0", b"1", b"2"]) == (outcome.code, outcome.received)


async def test_status_details(setup: Setup) -> None:
    """google.rpc.Status travels in trailers-only."""
    metadata = (("x-code", "ABORTED"), ("grpc-status-details-bin", b"\x08\x0a\xff"))
    outcome = await setup.caller.call(SERVICE + "Unary", metadata=metadata)
    assert StatusCode.ABORTED is outcome.code
    assert b"\x08\x0a\xff" == outcome.trailing["grpc-status-details-bin"]


async def test_unimplemented_method(setup: Setup) -> None:
    """An unknown method of a known service."""
    assert StatusCode.UNIMPLEMENTED is (await setup.caller.call(SERVICE + "Unknown")).code


async def test_unimplemented_service(setup: Setup) -> None:
    """An unknown service."""
    assert StatusCode.UNIMPLEMENTED is (await setup.caller.call("/no.Such/Method")).code


async def test_maximum_message_size(setup: Setup) -> None:
    """A request above 4 MiB is refused, and the connection goes on."""
    outcome = await setup.caller.call(SERVICE + "Unary", [bytes(4 * 2**20 + 1)])
    assert StatusCode.RESOURCE_EXHAUSTED is outcome.code
    assert StatusCode.OK is (await setup.caller.call(SERVICE + "Unary", [b"x"])).code


async def test_metadata(setup: Setup) -> None:
    """Text and binary metadata arrive before and after the messages."""
    sent = (("x-echo", "test initial value"), ("x-echo-bin", b"\xab\x00\xff"))
    outcome = await setup.caller.call(SERVICE + "Unary", metadata=sent)
    assert StatusCode.OK is outcome.code
    assert dict(sent).items() <= outcome.initial.items()
    assert dict(sent).items() <= outcome.trailing.items()


async def test_oversize_metadata(setup: Setup) -> None:
    """Metadata above the limit costs the call alone."""
    outcome = await setup.caller.call(SERVICE + "Unary", metadata=(("x-large", "x" * 20_000),))
    assert StatusCode.RESOURCE_EXHAUSTED is outcome.code
    assert StatusCode.OK is (await setup.caller.call(SERVICE + "Unary")).code


async def test_sequential_calls(setup: Setup) -> None:
    """A thousand calls, one after the other, on one connection."""
    for number in range(1000):
        outcome = await setup.caller.call(SERVICE + "Unary", [b"%d" % number])
        assert [b"%d" % number] == outcome.received
    if setup.server is not None:
        assert 1 == len(setup.server.transports)


async def test_parallel_calls(setup: Setup) -> None:
    """Two hundred at once on one connection."""
    calls = [
        setup.caller.call(SERVICE + "ServerStream", metadata=(("x-count", "10"), ("x-size", str(n * 50))))
        for n in range(200)
    ]
    outcomes = await asyncio.gather(*calls)
    assert [[b"%d" % i + bytes(n * 50) for i in range(10)] for n in range(200)] == [o.received for o in outcomes]
    if setup.server is not None:
        assert 1 == len(setup.server.transports)


async def test_goaway_mid_stream(setup: Setup) -> None:
    """A drain lets the running call finish."""
    metadata = (("x-count", "50"), ("x-pause", "0.01"))
    call = asyncio.ensure_future(setup.caller.call(SERVICE + "ServerStream", metadata=metadata))
    await setup.seen.until(lambda: setup.seen.sent_messages > 0)
    async with asyncio.timeout(PATIENCE_S):
        await setup.drain(10)
    outcome = await call
    assert (StatusCode.OK, 50) == (outcome.code, len(outcome.received))


async def test_slow_consumer(setup: Setup) -> None:
    """A client that reads slowly holds the server back, and gets everything."""
    metadata = (("x-count", "40"), ("x-size", "60000"))
    outcome = await setup.caller.call(SERVICE + "ServerStream", metadata=metadata, pause_s=0.01)
    assert (StatusCode.OK, 40) == (outcome.code, len(outcome.received))
