"""Calls whose client never says what it wants."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import running_gateway
from tests.fakes.scripted_worker import ScriptedWorker, serving
from tidegate.rpc.status import RpcError

_GENERATE = "/tidegate.inference.v1.InferenceService/Generate"


@pytest.mark.parametrize("timeout_s", [None, 60.0])
async def test_a_request_that_does_not_come_ends_its_call(stack: AsyncExitStack, timeout_s: float | None) -> None:
    """No call lasts longer than calls may, and one that waits for its request is a call."""
    worker = await stack.enter_async_context(serving(ScriptedWorker()))
    gateway = await stack.enter_async_context(
        running_gateway(worker.target, max_duration_s=0.1, data_plane="http2")  # grpc.aio tells nobody of such calls
    )
    call: Any = gateway.channel.stream_stream(_GENERATE)(timeout=timeout_s)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    error = RpcError.from_call(caught.value)
    assert (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED") == (error.code, error.reason)
