from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import running_gateway, text_request
from tests.fakes.scripted_worker import HANG, Response, ScriptedWorker, beginning, serving
from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.status import RpcError

pytestmark = pytest.mark.usefixtures("data_plane")

# More than any flow control lets pass unread.
_BIG = [Response(delta=generation_pb2.Delta(text=["x" * 100_000], token_ids=[number])) for number in range(200)]


async def _read_on(call: Any) -> tuple[int, RpcError]:
    """How many messages were still to be read, and the error behind them."""
    seen = 0
    try:
        while await call.read():
            seen += 1
    except grpc.aio.AioRpcError as error:
        return seen, RpcError.from_call(error)
    raise AssertionError("the call succeeded")


async def test_a_client_that_reads_nothing_is_given_up(stack: AsyncExitStack) -> None:
    """Its worker is free at once; when it reads on, it gets what it was sent, and then the reason."""
    worker = await stack.enter_async_context(serving(ScriptedWorker(scripts=[[*beginning(), *_BIG, HANG]])))
    gateway = await stack.enter_async_context(running_gateway(worker.target, max_reader_stall_s=0.2))
    call = gateway.stub.Generate(text_request(max_output_tokens=300))
    await call.read()
    async with asyncio.timeout(PATIENCE_S):
        await worker.cancelled.wait()
    seen, error = await _read_on(call)
    assert (grpc.StatusCode.ABORTED, "CLIENT_TOO_SLOW") == (error.code, error.reason)
    assert str(seen) == error.metadata["tokens_sent"]


async def test_a_client_that_waits_for_its_worker_is_not_slow(stack: AsyncExitStack) -> None:
    """Nothing is held for it."""
    worker = await stack.enter_async_context(serving(ScriptedWorker(scripts=[[*beginning("a"), HANG]])))
    gateway = await stack.enter_async_context(running_gateway(worker.target, max_reader_stall_s=0.05))
    _, error = await gateway.generate(text_request(), timeout=0.5)
    assert error is not None
    assert grpc.StatusCode.DEADLINE_EXCEEDED is error.code
