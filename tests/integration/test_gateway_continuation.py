from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.scripted_worker import (
    HANG,
    Response,
    Script,
    ScriptedWorker,
    answer,
    at_capacity,
    beginning,
    refusal,
    serving,
)
from tidegate.inference.v1 import generation_pb2

pytestmark = pytest.mark.usefixtures("data_plane")

LOST = grpc.StatusCode.UNAVAILABLE


def rest(*pieces: str, first_token: int) -> Script:
    """What a worker answers that goes on with an output: no Started, and further tokens."""
    deltas = (
        generation_pb2.Delta(text=[piece], token_ids=[number]) for number, piece in enumerate(pieces, first_token)
    )
    finished = generation_pb2.Finished(reason=generation_pb2.FINISH_REASON_STOP, continuation_count=1)
    return [*(Response(delta=delta) for delta in deltas), Response(finished=finished)]


async def start(
    stack: AsyncExitStack, *scripts: Script, **settings: Any
) -> tuple[RunningGateway, list[ScriptedWorker]]:
    """A gateway with one worker for each script, full afterwards. They are asked in order: each has more to do."""
    workers = []
    for number, script in enumerate(scripts):
        worker = ScriptedWorker(scripts=[script, [at_capacity()]], can_continue=True)
        worker.load.pending_prefill_token_count = number * 10_000
        workers.append(await stack.enter_async_context(serving(worker)))
    gateway = await stack.enter_async_context(running_gateway(*(worker.target for worker in workers), **settings))
    return gateway, workers


async def test_another_worker_goes_on_where_the_stream_broke_off(stack: AsyncExitStack) -> None:
    """The client has one Started, every token once, and one Finished that tells of the continuation."""
    gateway, (first, second) = await start(stack, [*beginning("a", "é"), LOST], rest("c", first_token=2))
    responses, error = await gateway.generate(text_request())
    tokens = [token for response in responses for token in response.delta.token_ids]
    events = [response.WhichOneof("event") for response in responses]
    assert (None, "aéc", [0, 1, 2]) == (error, text_of(responses), tokens)
    assert ["started", "delta", "delta", "delta", "finished"] == events
    assert 1 == responses[-1].finished.continuation_count
    (begun,), (job,) = first.jobs, second.jobs
    assert (begun.prompt_token_ids, begun.sampling) == (job.prompt_token_ids, job.sampling)
    assert ([0, 1], 3, 1, True) == (
        list(job.continued_token_ids),
        job.continued_text_byte_count,
        job.continuation_count,
        job.is_started,
    )


async def test_a_worker_that_is_full_is_asked_again_after_a_pause(stack: AsyncExitStack) -> None:
    """The stream waits: the client has half of it already."""
    gateway, (_, second) = await start(stack, [*beginning("a"), LOST], [at_capacity()])
    second.scripts = [[at_capacity()], [at_capacity()], rest("b", first_token=1)]
    responses, error = await gateway.generate(text_request())
    assert (None, "ab", 3) == (error, text_of(responses), len(second.jobs))


async def test_the_pause_ends(stack: AsyncExitStack) -> None:
    """Where no worker comes the stream is interrupted, and says how far it had come."""
    gateway, _ = await start(stack, [*beginning("a"), LOST], [at_capacity()], max_pause_s=0.2)
    responses, error = await gateway.generate(text_request())
    assert error is not None
    assert ("a", "STREAM_INTERRUPTED") == (text_of(responses), error.reason)
    assert {"tokens_sent": "1", "not_continued": "paused_too_long"} == error.metadata


async def test_a_request_that_may_end_its_workers_is_given_to_no_fourth(stack: AsyncExitStack) -> None:
    """Losses without a token between them speak against the request."""
    gateway, workers = await start(stack, [*beginning("a"), LOST], [LOST], [LOST], rest("never", first_token=1))
    _, error = await gateway.generate(text_request())
    assert error is not None
    assert {"tokens_sent": "1", "not_continued": "lost_too_often"} == error.metadata
    assert [1, 1, 1, 0] == [len(worker.jobs) for worker in workers]


async def test_a_stream_that_two_workers_were_lost_under_goes_on(stack: AsyncExitStack) -> None:
    """They went without a word, in the middle of its tokens: what killed them came from elsewhere."""
    lost = [*rest("b", first_token=1)[:1], LOST]
    gateway, workers = await start(stack, [*beginning("a"), LOST], lost, rest("c", first_token=2))
    for number, worker in enumerate(workers, 1):
        await worker.push(instance_id=number, pending_prefill_token_count=number * 10_000)
    async with asyncio.timeout(PATIENCE_S):
        while {1, 2, 3} != {seat.load.instance_id for seat in gateway.gateway.fleet.seats}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    responses, error = await gateway.generate(text_request())
    assert (None, "abc", 2) == (error, text_of(responses), len(gateway.gateway.fleet.quarantine))
    assert [] == gateway.gateway.fleet.quarantine.suspects(time.monotonic())
    (model,) = gateway.gateway.fleet.models.values()
    assert gateway.gateway.fleet.can_retry(model)


async def test_an_error_of_the_request_itself_is_not_continued(stack: AsyncExitStack) -> None:
    """Another worker would do no better."""
    violated = refusal(grpc.StatusCode.INTERNAL, "CONSTRAINT_VIOLATED")
    gateway, (_, second) = await start(stack, [*beginning("a"), violated], answer("never"))
    _, error = await gateway.generate(text_request())
    assert error is not None
    assert ("CONSTRAINT_VIOLATED", []) == (error.reason, second.jobs)


async def test_a_worker_lost_behind_finished_is_no_loss(stack: AsyncExitStack) -> None:
    """The client has everything; only the status was lost."""
    gateway, (_, second) = await start(stack, [*answer("a"), LOST], answer("never"))
    responses, error = await gateway.generate(text_request())
    assert (None, "a", []) == (error, text_of(responses), second.jobs)


async def test_the_deadline_ends_a_pause(stack: AsyncExitStack) -> None:
    """A client's time is not spent on waiting for a worker that cannot come in time."""
    gateway, _ = await start(stack, [*beginning("a"), LOST], [at_capacity()])
    _, error = await gateway.generate(text_request(), timeout=0.5)
    assert error is not None
    assert grpc.StatusCode.DEADLINE_EXCEEDED is error.code


@pytest.mark.parametrize("script", [[*beginning("a"), HANG]])
async def test_a_worker_that_hangs_is_not_lost(stack: AsyncExitStack, script: Script) -> None:
    """It may be busy; the client's deadline bounds it."""
    gateway, (_, second) = await start(stack, script, answer("never"))
    _, error = await gateway.generate(text_request(), timeout=0.3)
    assert error is not None
    assert ("DEADLINE_EXCEEDED", []) == (error.reason or error.code.name, second.jobs)
