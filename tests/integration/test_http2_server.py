"""What the conformance cases do not show: floods beside good clients, slow readers, relays, and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
import uvloop
from grpc import StatusCode
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame

from tests.fakes.http2_callers import AioCaller
from tests.fakes.http2_peer import read_frames
from tests.fakes.http2_raw_client import RawClient
from tests.fakes.http2_service import SERVICE, EdgeService, Observations
from tests.fakes.patience import PATIENCE_S
from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.frames import PREFACE
from tidegate.http2.grpc_status import CallError, Status
from tidegate.http2.limits import Abuse, AbuseTally, Limits
from tidegate.http2.messages import framed
from tidegate.http2.relay import MessageFilter, Relay
from tidegate.http2.server import GrpcServer, Handler
from tidegate.http2.server_call import ServerCall
from tidegate.http2.transport import Flusher


@dataclass
class Edge:
    """A server on a port, and what it has seen."""

    server: GrpcServer
    port: int
    seen: Observations
    tally: AbuseTally
    flusher: Flusher

    def channel(self) -> Channel:
        """A channel of our own to it."""
        endpoint = Endpoint(role=Role.CLIENT, clock=time.monotonic)
        return Channel(endpoint, Target(host="127.0.0.1", port=self.port), flusher=self.flusher)


@contextlib.asynccontextmanager
async def serving(
    handlers: Callable[[Observations], dict[str, Handler]], limits: Limits | None = None
) -> AsyncIterator[Edge]:
    """A server for as long as the block."""
    seen, flusher = Observations(), Flusher(asyncio.get_running_loop())
    endpoint = Endpoint(role=Role.SERVER, clock=time.monotonic, limits=limits or Limits())
    server = GrpcServer(endpoint, handlers(seen), flusher=flusher)
    edge = Edge(server, await server.listen("127.0.0.1", 0), seen, endpoint.tally, flusher)
    try:
        yield edge
    finally:
        await server.drain(0)


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """The conformance service."""
    async with serving(lambda seen: EdgeService(seen).handlers()) as edge:
        yield edge


@pytest.mark.parametrize("abuse", [Abuse.RAPID_RESET, Abuse.PING_FLOOD, Abuse.SETTINGS_FLOOD, Abuse.EMPTY_FRAME_FLOOD])
async def test_flood_is_cut_off_while_good_clients_are_served(edge: Edge, abuse: Abuse) -> None:
    """The attacker is disconnected by name; a call that runs meanwhile gets all its messages."""
    good = AioCaller(f"127.0.0.1:{edge.port}")
    metadata = (("x-count", "100"), ("x-pause", "0.005"))
    call = asyncio.ensure_future(good.call(SERVICE + "ServerStream", metadata=metadata))
    await edge.seen.until(lambda: edge.seen.sent_messages > 0)
    attacker = await RawClient.connect(edge.port)

    if abuse is Abuse.EMPTY_FRAME_FLOOD:
        attacker.send(attacker.request(1, "Hang"))

    def frames(turn: int) -> tuple[Frame, ...]:
        match abuse:
            case Abuse.RAPID_RESET:
                return attacker.request(2 * turn + 1, "Hang"), RstStreamFrame(2 * turn + 1, 8)
            case Abuse.PING_FLOOD:
                return (PingFrame(),) * 50
            case Abuse.SETTINGS_FLOOD:
                return (SettingsFrame(),) * 50
            case _:
                return (DataFrame(1, b""),) * 50

    await attacker.flood(frames)
    attacker.close()
    outcome = await call
    assert (StatusCode.OK, 100) == (outcome.code, len(outcome.received))
    assert 1 == edge.tally[abuse]
    await good.close()


async def test_client_that_does_not_speak_http2_is_told(edge: Edge) -> None:
    """A stray HTTP/1 request is answered by GOAWAY and the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    frames = read_frames(await reader.read())
    assert isinstance(frames[-1], GoAwayFrame)
    writer.close()
    await writer.wait_closed()


async def test_reader_that_stops_holds_a_bounded_amount(edge: Edge) -> None:
    """A client that reads nothing stops its producer; what is held for it is bounded."""
    client = await RawClient.connect(edge.port, SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}))
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a reading transport has it
    head = client.request(1, "ServerStream", metadata=(("x-count", "100000"), ("x-size", "10000")))
    client.send(head, DataFrame(1, framed(b""), flags=["END_STREAM"]))
    await edge.seen.until(lambda: edge.seen.sent_messages > 0)
    (transport,) = edge.server.transports
    sent = -1
    async with asyncio.timeout(PATIENCE_S):
        while sent != edge.seen.sent_messages:  # until the producer stands still
            sent = edge.seen.sent_messages
            await asyncio.sleep(0.2)
    held = sum(stream.backlog_bytes for stream in transport.connection.streams.open.values())
    assert held + transport.buffered_bytes < 256 * 2**10
    client.close()
    await edge.seen.until(lambda: edge.seen.cancelled > 0)


async def test_a_client_that_compresses_is_told_what_is_taken(edge: Edge) -> None:
    """Its other calls, on the same connection, go on."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        echo: Any = channel.stream_stream(SERVICE + "Bidi")()
        unary: Any = channel.unary_unary(SERVICE + "Unary")
        await echo.write(b"before")
        assert b"before" == await echo.read()
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await unary(bytes(1_000), compression=grpc.Compression.Gzip)
        assert StatusCode.UNIMPLEMENTED is refusal.value.code()
        await echo.write(b"after")
        assert b"after" == await echo.read()
    client = await RawClient.connect(edge.port)
    client.send(client.request(1, "Unary", metadata=(("grpc-encoding", "gzip"),)))
    answer = await client.reader.readuntil(b"gzip is not supported")
    assert b"grpc-accept-encoding\x08identity" in answer
    client.close()


async def test_an_answer_that_is_never_read_is_not_held_for_ever() -> None:
    """Its handler is done, and nobody else would look after it. Other calls of the same client go on."""
    limits = Limits(unread_timeout_s=0.05)
    async with serving(lambda seen: EdgeService(seen).handlers(), limits) as edge:
        client = await RawClient.connect(edge.port, SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        for stream_id in (1, 3):
            head = client.request(stream_id, "Unary" if stream_id == 1 else "Hang", metadata=(("x-size", "1000"),))
            client.send(head, DataFrame(stream_id, framed(b""), flags=["END_STREAM"]))
        await edge.seen.until(lambda: edge.seen.started == 2)
        (transport,) = edge.server.transports
        async with asyncio.timeout(PATIENCE_S):
            while 1 in transport.connection.streams.open:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
        assert [3] == list(transport.connection.streams.open)
        client.close()


async def test_call_to_nobody_is_unavailable(edge: Edge) -> None:
    """A refused connection and a server of another protocol are both UNAVAILABLE."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint = Endpoint(role=Role.CLIENT, clock=time.monotonic)
    for _ in range(2):
        channel = Channel(endpoint, Target(host="127.0.0.1", port=port), flusher=edge.flusher)
        with pytest.raises(CallError) as failure:
            await channel.call(SERVICE + "Unary")
        assert StatusCode.UNAVAILABLE is failure.value.status.code
        server.close()
        await server.wait_closed()


async def test_nothing_is_opened_before_the_servers_first_words() -> None:
    """They tell how many streams it takes; what came sooner might be refused."""
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda *streams: accepted.put_nowait(streams), "127.0.0.1", 0)
    target = Target(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    flusher = Flusher(asyncio.get_running_loop())
    channel = Channel(Endpoint(role=Role.CLIENT, clock=time.monotonic), target, flusher=flusher)
    connecting = asyncio.ensure_future(channel.connect())
    reader, writer = await accepted.get()
    await reader.readexactly(len(PREFACE))  # the client has its socket
    assert not channel.can_open
    writer.write(SettingsFrame(settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 4}).serialize())
    await connecting
    assert channel.can_open
    channel.close()
    writer.transport.abort()
    server.close()


async def test_channel_connects_again_after_its_server_has_left(edge: Edge) -> None:
    """GOAWAY moves new calls to a new connection; the old one finishes what runs."""
    channel = edge.channel()
    old = await channel.call(SERVICE + "Bidi")
    old.send(b"one")
    assert b"one" == await old.receive()
    (transport,) = edge.server.transports
    transport.connection.session.drain()
    transport.flush()
    async with asyncio.timeout(PATIENCE_S):
        while channel.can_open:  # noqa: ASYNC110 - a channel has no events
            await asyncio.sleep(0)
    new = await channel.call(SERVICE + "Unary")
    new.send(b"two", half_close=True)
    assert b"two" == await new.receive()
    old.send(b"three", half_close=True)
    assert b"three" == await old.receive()
    assert await old.receive() is None
    channel.close()


@contextlib.asynccontextmanager
async def relaying(upstream: Edge, *, reshape: MessageFilter = lambda payload: payload) -> AsyncIterator[Edge]:
    """A server that relays ServerStream to ``upstream``."""
    channel = upstream.channel()

    async def handler(call: ServerCall) -> Status:
        request = await call.receive_only()
        relay = Relay(call, on_messages=reshape)
        await channel.connect()
        relay.stream = channel.open(channel.head(SERVICE + "ServerStream", metadata=call.metadata), relay)
        try:
            relay.stream.send_data(framed(request), end_stream=True)
            return await relay.ended()
        finally:
            relay.cancel()

    async with serving(lambda seen: {SERVICE + "ServerStream": handler}) as edge:
        yield edge
        channel.close()


@pytest.mark.parametrize("size", [0, 10, 16_370, 16_371, 200_000])
async def test_relay_passes_messages_and_trailers(edge: Edge, size: int) -> None:
    """What upstream sends arrives whole, whatever its messages' relation to frames."""
    async with relaying(edge) as front:
        client = AioCaller(f"127.0.0.1:{front.port}")
        metadata = (("x-count", "20"), ("x-size", str(size)), ("x-echo", "seen"), ("x-code", "ABORTED"))
        outcome = await client.call(SERVICE + "ServerStream", metadata=metadata)
        assert [b"%d" % n + bytes(size) for n in range(20)] == outcome.received
        assert (StatusCode.ABORTED, "seen") == (outcome.code, outcome.trailing["x-echo"])
        await client.close()


async def test_relay_cancels_upstream_with_its_client(edge: Edge) -> None:
    """A client that leaves frees what works for it."""
    async with relaying(edge) as front:
        client = AioCaller(f"127.0.0.1:{front.port}")
        metadata = (("x-count", "1000000"), ("x-pause", "0.001"))
        await client.call(SERVICE + "ServerStream", metadata=metadata, cancel_after=1)
        await edge.seen.until(lambda: edge.seen.cancelled > 0)
        await client.close()


async def test_relay_reports_a_lost_upstream(edge: Edge) -> None:
    """Messages that came before the loss were delivered; the status says what happened."""
    async with relaying(edge) as front:
        client = AioCaller(f"127.0.0.1:{front.port}")
        metadata = (("x-count", "1000000"), ("x-pause", "0.01"))
        call = asyncio.ensure_future(client.call(SERVICE + "ServerStream", metadata=metadata))
        await edge.seen.until(lambda: edge.seen.sent_messages > 2)
        for transport in edge.server.transports:
            transport.abort()
        outcome = await call
        assert StatusCode.UNAVAILABLE is outcome.code
        assert outcome.received
        await client.close()


async def test_relay_lets_its_owner_reshape_messages(edge: Edge) -> None:
    """What the filter withholds or adds does not upset the windows."""

    def reshape(payload: bytes) -> bytes:
        return b"" if payload[5:6] == b"1" else payload + framed(b"x" * 3_000)

    async with relaying(edge, reshape=reshape) as front:
        client = AioCaller(f"127.0.0.1:{front.port}")
        outcome = await client.call(SERVICE + "ServerStream", metadata=(("x-count", "300"), ("x-size", "1000")))
        assert StatusCode.OK is outcome.code
        kept = [n for n in range(300) if not str(n).startswith("1")]
        assert [b"%d" % n + bytes(1_000) for n in kept] == outcome.received[::2]
        await client.close()


async def test_relay_holds_a_fast_upstream_for_a_slow_client(edge: Edge) -> None:
    """A client that reads nothing stops upstream, and little is held in between."""
    async with relaying(edge) as front:
        client = await RawClient.connect(front.port)
        head = client.request(1, "ServerStream", metadata=(("x-count", "100000"), ("x-size", "10000")))
        client.send(head, DataFrame(1, framed(b""), flags=["END_STREAM"]))
        await edge.seen.until(lambda: edge.seen.sent_messages > 5)
        sent = -1
        async with asyncio.timeout(PATIENCE_S):
            while sent != edge.seen.sent_messages:
                sent = edge.seen.sent_messages
                await asyncio.sleep(0.2)
        held = sum(
            stream.backlog_bytes
            for server in (edge.server, front.server)
            for transport in server.transports
            for stream in transport.connection.streams.open.values()
        )
        assert held <= 65_535 + 2 * 10_006
        client.close()
        await edge.seen.until(lambda: edge.seen.cancelled > 0)


async def test_call_that_is_cancelled_before_its_handler_begins_leaves_nothing(edge: Edge) -> None:
    """Its request and its end come in one read."""
    client = await RawClient.connect(edge.port)
    client.send(client.request(1, "ServerStream"), RstStreamFrame(1, error_code=8), PingFrame(0, b"12345678"))
    async with asyncio.timeout(PATIENCE_S):
        while not edge.server.transports:  # noqa: ASYNC110 - the server has no event for a test
            await asyncio.sleep(0.005)
        await client.reader.readuntil(b"12345678")
    assert {} == edge.server._tasks
    client.writer.close()


def test_uvloop_serves_the_same() -> None:
    """The loop of production: parallel calls, large messages, a drain in the middle."""

    async def scenario() -> None:
        async with serving(lambda seen: EdgeService(seen).handlers()) as edge, relaying(edge) as front:
            client = AioCaller(f"127.0.0.1:{front.port}")
            metadata = (("x-count", "50"), ("x-size", "5000"))
            calls = asyncio.gather(*(client.call(SERVICE + "ServerStream", metadata=metadata) for _ in range(100)))
            await edge.seen.until(lambda: edge.seen.started == 100)
            await front.server.drain(10)
            assert [50] * 100 == [len(outcome.received) for outcome in await calls]
            await client.close()

    uvloop.run(scenario())


async def test_a_connection_that_has_flooded_is_kept_from_coming_back() -> None:
    """It is told, and then neither read nor closed for a while; an end that it makes itself is obeyed."""
    flusher = Flusher(asyncio.get_running_loop())
    server = GrpcServer(Endpoint(role=Role.SERVER, clock=time.monotonic), {}, flusher=flusher)
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + SettingsFrame().serialize() + 20_000 * PingFrame(opaque_data=b"01234567").serialize())
    await reader.readuntil(b"ping_flood")
    assert (1, 1) == (flusher.held, len(server.transports))
    writer.transport.abort()
    await server.drain(5)
    assert (0, 0) == (flusher.held, len(server.transports))
