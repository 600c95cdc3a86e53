"""A client that stops reading, before gateway and worker over HTTP/2: what the two hold for it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.fakes.running_gateway import running_gateway, text_request
from tests.fakes.running_worker import running_worker
from tidegate.http2.channel import Channel, Target
from tidegate.http2.client_call import ClientCall
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.grpc_status import CallError
from tidegate.http2.limits import Limits
from tidegate.http2.transport import Flusher
from tidegate.rpc.http2_status import from_status
from worker.config import WorkerSettings

_MOST_HELD_BYTES = 256_000


@pytest.mark.parametrize("logprobs", [0, 20])
async def test_what_is_held_for_a_client_that_stops_reading_is_bounded(stack: AsyncExitStack, logprobs: int) -> None:
    """An output of 50 bytes a token waits in the buffers; one of a kilobyte each is given up, and its client told."""
    settings = WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=1, sim_time_scale=0.01)
    worker = await stack.enter_async_context(running_worker(settings))
    gateway = await stack.enter_async_context(running_gateway(worker.worker.address))
    host, _, port = gateway.gateway.address.rpartition(":")
    endpoint = Endpoint(role=Role.CLIENT, clock=time.monotonic, limits=Limits())
    channel = Channel(endpoint, Target(host=host, port=int(port)), flusher=Flusher(asyncio.get_running_loop()))
    stack.callback(channel.close)
    request = text_request(model="sim", max_output_tokens=3_000, min_output_tokens=3_000)
    request.output.include_token_ids = True
    request.output.logprobs = logprobs
    call = await channel.call("/tidegate.inference.v1.InferenceService/Generate")
    call.send(request.SerializeToString(), half_close=True)
    await call.receive()
    most = 0
    model: Any = worker.worker._model
    while model.ledger.requests:
        most = max(most, _held(gateway.gateway, worker.worker))
        await asyncio.sleep(0)

    assert 0 < most <= _MOST_HELD_BYTES
    expected = "CLIENT_TOO_SLOW" if logprobs else ""
    assert expected == await _end(call)


async def _end(call: ClientCall) -> str:
    """Read on; the reason of the error behind it, if there is one."""
    try:
        while await call.receive() is not None:
            pass
    except CallError as error:
        return from_status(error.status).reason
    return ""


def _held(gateway: Any, worker: Any) -> int:
    ports = (stream.port for stream in worker._model.engine._streams.values())
    return int(sum((*gateway._port.unread(), *worker._port.unread(), *(port._held_bytes for port in ports))))
