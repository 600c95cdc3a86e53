from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from tests.fakes.http2_peer import RecordingHandler
from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_worker import running_worker
from tidegate.http2.channel import Channel, Target
from tidegate.http2.endpoint import Endpoint, Role
from tidegate.http2.errors import ErrorCode
from tidegate.http2.transport import Flusher
from worker.config import WorkerSettings

_GENERATE = "/tidegate.worker.v1.WorkerService/Generate"


async def test_a_gateway_that_passes_many_cancels_on_is_not_cut_off(stack: AsyncExitStack) -> None:
    """They are those of all its clients, and so are the streams that would end with its connection."""
    settings = WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=1, data_plane="http2")
    worker = await stack.enter_async_context(running_worker(settings))
    host, _, port = worker.worker.address.rpartition(":")
    flusher = Flusher(asyncio.get_running_loop())
    channel = Channel(
        Endpoint(role=Role.CLIENT, clock=time.monotonic), Target(host=host, port=int(port)), flusher=flusher
    )
    stack.callback(channel.close)
    call = await channel.call(_GENERATE)
    for _ in range(5_000):
        channel.open(channel.head(_GENERATE), RecordingHandler()).reset(ErrorCode.CANCEL)
    call.send(worker.request().SerializeToString(), half_close=True)
    async with asyncio.timeout(PATIENCE_S):
        while await call.receive() is not None:
            pass
    assert call.status is not None
    assert call.status.is_ok
