from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import pytest
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame

from tests.fakes.http2_peer import REQUEST, fields_of
from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import running_gateway, text_of, text_request
from tests.fakes.scripted_worker import HANG, ScriptedWorker, answer, beginning, serving
from tidegate.http2.frames import PREFACE
from tidegate.http2.messages import framed
from tidegate.inference.v1 import inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS

GENERATE = "/tidegate.inference.v1.InferenceService/Generate"
_CONFIG = json.loads((Path(__file__).parents[2] / "protos" / "service_config.json").read_text(encoding="utf-8"))
NO_HEALTH_CHECKS = json.dumps({key: value for key, value in _CONFIG.items() if key != "healthCheckConfig"})


async def frames_from(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    """What a server says, frame by frame, until it closes."""
    while head := await reader.read(9):
        head += await reader.readexactly(9 - len(head))
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(await reader.readexactly(length)))
        yield frame


async def test_a_drain_refuses_new_calls_and_finishes_running_ones(
    stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stream is lost to a shutdown, and the process ends by itself when the last one has."""
    monkeypatch.setenv("TIDEGATE_GATEWAY_DATA_PLANE", "grpc")  # where connections stand until the end
    worker = await stack.enter_async_context(serving(ScriptedWorker(scripts=[[*beginning("a"), HANG]])))
    gateway = await stack.enter_async_context(running_gateway(worker.target))
    held = gateway.stub.Generate(text_request())
    await held.read()
    gateway.gateway.stop()
    error = await gateway.error(text_request())
    assert ("DRAINING", grpc.StatusCode.UNAVAILABLE) == (error.reason, error.code)
    assert error.retry_after_s is not None
    assert not gateway.life.done()
    held.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await gateway.life


async def test_a_call_that_crosses_the_goaway_is_refused_with_a_reason(stack: AsyncExitStack) -> None:
    """GOAWAY comes when a drain begins; a client that has not read it yet is told to retry."""
    worker = await stack.enter_async_context(serving(ScriptedWorker(scripts=[[*beginning("a"), HANG]])))
    gateway = await stack.enter_async_context(running_gateway(worker.target))
    held = gateway.stub.Generate(text_request())
    await held.read()
    host, _, port = gateway.gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + SettingsFrame().serialize() + SettingsFrame(flags=["ACK"]).serialize())
    frames = frames_from(reader)
    async with asyncio.timeout(PATIENCE_S):
        assert isinstance(await anext(frames), SettingsFrame)
        gateway.gateway.stop()
        while not isinstance(await anext(frames), GoAwayFrame):
            pass
        fields = [(name, GENERATE if name == ":path" else value) for name, value in REQUEST]
        head = HeadersFrame(1, Encoder().encode(fields), flags=["END_HEADERS"])
        writer.write(head.serialize() + DataFrame(1, framed(b""), flags=["END_STREAM"]).serialize())
        while not isinstance(frame := await anext(frames), HeadersFrame):
            pass
    status = fields_of(frame)
    assert "14" == status["grpc-status"]
    details = base64.b64decode(status["grpc-status-details-bin"] + "==")
    assert b"DRAINING" in details
    assert b"google.rpc.RetryInfo" in details
    writer.close()
    held.cancel()


async def test_clients_that_check_no_health_go_elsewhere_when_a_drain_begins(stack: AsyncExitStack) -> None:
    """Their running calls come to an end where they are, and new ones begin at the other gateway."""
    worker = ScriptedWorker(scripts=[[*beginning("a"), HANG], answer("b")])
    await stack.enter_async_context(serving(worker))
    first, second = [await stack.enter_async_context(running_gateway(worker.target)) for _ in range(2)]
    options = (*CHANNEL_OPTIONS[:-1], ("grpc.service_config", NO_HEALTH_CHECKS))
    targets = f"ipv4:{first.gateway.address},{second.gateway.address}"
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(targets, options=options))
    stub: inference_service_pb2_grpc.InferenceServiceAsyncStub
    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
    held = stub.Generate(text_request())
    await held.read()
    draining, other = (first, second) if first.gateway.fleet.seats[0].in_flight else (second, first)
    draining.gateway.stop()
    for _ in range(3):
        assert "b" == text_of([response async for response in stub.Generate(text_request())])
    assert not held.done()
    assert not draining.life.done()
    assert not other.life.done()
    held.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await draining.life


async def test_a_client_that_is_silent_is_pinged_as_the_settings_say(stack: AsyncExitStack) -> None:
    """A proxy in between that closes what is idle sees traffic in time; who does not answer is given up."""
    worker = await stack.enter_async_context(serving(ScriptedWorker()))
    gateway = await stack.enter_async_context(running_gateway(worker.target, keepalive_s=1, keepalive_timeout_s=1))
    host, _, port = gateway.gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + SettingsFrame().serialize() + SettingsFrame(flags=["ACK"]).serialize())
    async with asyncio.timeout(PATIENCE_S):
        seen = [type(frame) async for frame in frames_from(reader)]
    assert [PingFrame, GoAwayFrame] == seen[-2:]
    writer.close()
