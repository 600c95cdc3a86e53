from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, closing

import grpc
import pytest

from bench.tracing_client import CallFailedError, Client
from tests.fakes.running_gateway import running_gateway, text_request
from tests.fakes.scripted_worker import ScriptedWorker, answer, serving

_METHOD = "/tidegate.inference.v1.InferenceService/Generate"


def load(address: str, calls: int, streams: int) -> None:
    """Each of ``calls`` is read to its end."""
    with closing(Client(address, _METHOD)) as client:
        client.load([text_request().SerializeToString()] * calls, streams)


async def test_a_round_is_over_when_each_of_its_calls_is(stack: AsyncExitStack) -> None:
    """However many are to run at a time."""
    worker = await stack.enter_async_context(serving(ScriptedWorker(scripts=[answer("a", "b")] * 5)))
    gateway = await stack.enter_async_context(running_gateway(worker.target))
    await asyncio.to_thread(load, gateway.gateway.address, 5, 2)
    await gateway.gateway.until_idle()
    assert 5 == len(worker.jobs)


async def test_a_call_that_fails_ends_the_round(stack: AsyncExitStack) -> None:
    """What it took would be no measure of an answer."""
    failing = ScriptedWorker(scripts=[[grpc.StatusCode.INTERNAL]])
    await stack.enter_async_context(serving(failing))
    gateway = await stack.enter_async_context(running_gateway(failing.target))
    with pytest.raises(CallFailedError):
        await asyncio.to_thread(load, gateway.gateway.address, 1, 1)
