from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing

import grpc
import pytest

from gateway.passage import Passage
from gateway.policy.silence import Silence
from gateway.records import Record
from gateway.workers.client import WorkerClient
from gateway.workers.load_watch import watch_load
from gateway.workers.seat import Lease
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.scripted_worker import Response, Script, ScriptedWorker, answer, at_capacity, beginning, serving
from tidegate.http2.relay import Relay
from tidegate.http2.streams import Stream
from tidegate.inference.v1 import generation_pb2

LOST = grpc.StatusCode.UNAVAILABLE
# What is made for each request, for each attempt, or for each load report.
_KINDS = (Lease, Passage, Record, Relay, Silence, Stream)
_REST = [
    Response(delta=generation_pb2.Delta(text=["b"], token_ids=[1])),
    Response(finished=generation_pb2.Finished(reason=generation_pb2.FINISH_REASON_STOP, continuation_count=1)),
]


class _Census:
    """How many objects of some kinds there are more than at its beginning."""

    def __init__(self) -> None:
        self._before = self._all()

    @property
    def more(self) -> Counter[str]:
        """By kind."""
        return self._all() - self._before

    def _all(self) -> Counter[str]:
        # Not by isinstance, which asks each object for its class: some of torch's then warn.
        return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in _KINDS)


@pytest.fixture
def census() -> Iterator[_Census]:
    """Without the garbage collector: what ends is gone at once, or stays."""
    gc.collect()
    gc.disable()
    try:
        yield _Census()
    finally:
        gc.enable()


async def _start(stack: AsyncExitStack, *scripts: Script) -> RunningGateway:
    """A gateway with one worker for each script, which are asked in order."""
    workers = []
    for number, script in enumerate(scripts):
        worker = ScriptedWorker(scripts=[script, [at_capacity()]], can_continue=True)
        worker.load.pending_prefill_token_count = number * 10_000
        workers.append(await stack.enter_async_context(serving(worker)))
    return await stack.enter_async_context(running_gateway(*(worker.target for worker in workers)))


@pytest.mark.parametrize(
    "scripts",
    [
        pytest.param([[*beginning("a"), LOST], _REST], id="a worker that was lost in the middle"),
        pytest.param([[LOST], answer("a", "b")], id="a worker that failed before the first token"),
    ],
)
async def test_a_request_that_went_on_elsewhere_leaves_nothing_to_the_garbage_collector(
    stack: AsyncExitStack, census: _Census, scripts: list[Script]
) -> None:
    """Where workers die by the dozen, what their streams have made would fill the memory until it is looked for."""
    gateway = await _start(stack, *scripts)
    responses, error = await gateway.generate(text_request())
    assert (None, "ab") == (error, text_of(responses))
    gateway.gateway.stop()
    await gateway.life
    assert Counter() == census.more


async def test_an_attempt_that_failed_is_gone_while_the_next_one_runs(stack: AsyncExitStack, census: _Census) -> None:
    """A stream may go on for long, and holds what one attempt needs."""
    is_seen = asyncio.Event()
    gateway = await _start(stack, [*beginning("a"), LOST], [_REST[0], is_seen, _REST[1]])
    responses = aiter(gateway.stub.Generate(text_request()))
    seen = [await anext(responses) for _ in range(3)]
    more = census.more
    is_seen.set()
    seen += [response async for response in responses]
    assert ("ab", "finished") == (text_of(seen), seen[-1].WhichOneof("event"))
    assert (1, 1, 2) == (more["Lease"], more["Relay"], more["Stream"])  # the client's stream, and the worker's


async def test_a_load_report_leaves_nothing_to_the_garbage_collector(stack: AsyncExitStack, census: _Census) -> None:
    """Each worker sends up to fifty of them a second, for as long as it lives."""
    worker = await stack.enter_async_context(serving(ScriptedWorker(heartbeat_s=0.001)))
    client = WorkerClient(worker.target)
    stack.push_async_callback(client.close)
    loads = await stack.enter_async_context(aclosing(watch_load(client)))
    for _ in range(3):
        await anext(loads)
    assert Counter() == census.more
