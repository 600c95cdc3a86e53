from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from tests.fakes.clock import leap
from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.scripted_worker import (
    HANG,
    Script,
    ScriptedWorker,
    answer,
    at_capacity,
    beginning,
    refusal,
    serving,
)
from tidegate.rpc.status import Violation

pytestmark = pytest.mark.usefixtures("data_plane")

LOST = grpc.StatusCode.UNAVAILABLE


async def start(
    stack: AsyncExitStack, *scripts: Script, heartbeat_s: float = 0.5, **settings: Any
) -> tuple[RunningGateway, list[ScriptedWorker]]:
    """A gateway with one worker for each script. They are asked in order: each has more prompts pending."""
    workers = []
    for number, script in enumerate(scripts):
        worker = ScriptedWorker(scripts=[script], heartbeat_s=heartbeat_s)
        worker.load.pending_prefill_token_count = number * 10_000
        workers.append(await stack.enter_async_context(serving(worker)))
    gateway = await stack.enter_async_context(running_gateway(*(worker.target for worker in workers), **settings))
    return gateway, workers


async def test_relays_the_workers_events_as_they_are(stack: AsyncExitStack) -> None:
    """The client receives what the worker sent."""
    gateway, _ = await start(stack, answer("Par", "is"))
    responses, error = await gateway.generate(text_request())
    assert (list(answer("Par", "is")), None) == (responses, error)


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(LOST, id="transport lost"),
        pytest.param(grpc.StatusCode.CANCELLED, id="server stopped"),
        pytest.param(refusal(LOST, "NOT_SERVING"), id="not serving"),
        pytest.param(refusal(LOST, "ENGINE_DEAD"), id="engine dead"),
        pytest.param(at_capacity(), id="at capacity"),
        pytest.param(refusal(grpc.StatusCode.FAILED_PRECONDITION, "CHECKPOINT_MISMATCH"), id="checkpoint mismatch"),
    ],
)
async def test_goes_elsewhere_when_a_worker_fails_before_its_first_event(
    stack: AsyncExitStack, failure: object
) -> None:
    """The client sees only the second worker's answer."""
    gateway, (first, second) = await start(stack, [failure], answer("yes"))  # type: ignore[list-item]
    responses, error = await gateway.generate(text_request())
    assert ("yes", None) == (text_of(responses), error)
    assert (1, 1) == (len(first.jobs), len(second.jobs))


async def test_a_worker_of_the_release_before_interrupts_the_stream_when_it_is_lost(stack: AsyncExitStack) -> None:
    """It cannot continue outputs: no second one is asked, and the client learns how many tokens it had."""
    gateway, (_, second) = await start(stack, [*beginning("a", "b"), LOST], answer("never"))
    responses, error = await gateway.generate(text_request())
    assert error is not None
    assert ("STREAM_INTERRUPTED", LOST) == (error.reason, error.code)
    assert {"tokens_sent": "2", "not_continued": "not_supported"} == error.metadata
    assert ("ab", []) == (text_of(responses), second.jobs)


async def test_asks_each_worker_once_when_all_are_full(stack: AsyncExitStack) -> None:
    """They are not asked again before they report; KV_EXHAUSTED names the shortest wait that a worker gave."""
    scripts = [at_capacity(0.7)], [at_capacity(0.3)], [at_capacity(0.9)]
    gateway, workers = await start(stack, *scripts, heartbeat_s=60, max_wait_s=60)
    call = asyncio.create_task(gateway.error(text_request()))
    room = gateway.gateway.waiting_room
    async with asyncio.timeout(PATIENCE_S):
        while not (all(worker.jobs for worker in workers) and len(room) == 1):  # noqa: ASYNC110 - other tasks
            await asyncio.sleep(0.005)
    leap(60)
    error = await call
    assert ("KV_EXHAUSTED", 0.3, "max_wait") == (error.reason, error.retry_after_s, error.metadata["limit"])
    assert [1, 1, 1] == [len(worker.jobs) for worker in workers]


async def test_a_request_is_given_to_no_third_worker_after_two_were_lost(stack: AsyncExitStack) -> None:
    """A request that kills workers does not walk through the fleet."""
    gateway, workers = await start(stack, [LOST], [LOST], answer("never"))
    error = await gateway.error(text_request())
    assert ("NO_WORKER_AVAILABLE", LOST) == (error.reason, error.code)
    assert [1, 1, 0] == [len(worker.jobs) for worker in workers]


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_JOB"), grpc.StatusCode.INTERNAL, "INTERNAL"),
        (refusal(grpc.StatusCode.INTERNAL, "ENGINE_ERROR"), grpc.StatusCode.INTERNAL, "ENGINE_ERROR"),
        (refusal(grpc.StatusCode.INTERNAL, "CONSTRAINT_VIOLATED"), grpc.StatusCode.INTERNAL, "CONSTRAINT_VIOLATED"),
        (refusal(grpc.StatusCode.INTERNAL, "INTERNAL"), grpc.StatusCode.INTERNAL, "INTERNAL"),
        (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, "INTERNAL"),
        (
            refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "DEADLINE_EXCEEDED",
        ),
    ],
)
async def test_translates_errors_that_no_other_worker_would_cure(
    stack: AsyncExitStack, failure: object, code: grpc.StatusCode, reason: str
) -> None:
    """A worker's own status never reaches the client, and nobody else is asked."""
    gateway, (_, second) = await start(stack, [failure], answer("never"))  # type: ignore[list-item]
    error = await gateway.error(text_request())
    assert (code, reason, []) == (error.code, error.reason, second.jobs)
    assert "said" not in error.message


async def test_passes_on_why_a_constraint_was_rejected(stack: AsyncExitStack) -> None:
    """The field that the worker names is the client's field."""
    violation = Violation(field="constraint.regex", description="is too complex")
    rejected = refusal(grpc.StatusCode.INVALID_ARGUMENT, "CONSTRAINT_REJECTED", violations=[violation])
    gateway, _ = await start(stack, [rejected])
    error = await gateway.error(text_request())
    assert ("CONSTRAINT_REJECTED", [violation]) == (error.reason, list(error.violations))


@pytest.mark.parametrize("script", [answer("a", finish=False), []])
async def test_ok_without_finished_is_an_error_of_ours(stack: AsyncExitStack, script: Script) -> None:
    """A stream that just ends is not passed off as an answer."""
    gateway, _ = await start(stack, script)
    assert "ENGINE_ERROR" == (await gateway.error(text_request())).reason


async def test_a_cancelled_call_is_cancelled_at_the_worker(stack: AsyncExitStack) -> None:
    """The client's cancel travels on, and the lease ends."""
    gateway, (worker,) = await start(stack, [*beginning("a"), HANG])
    call = gateway.stub.Generate(text_request())
    await call.read()
    call.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await worker.cancelled.wait()
        await gateway.gateway.until_idle()
    assert [0] == [seat.in_flight for seat in gateway.gateway.fleet.seats]


async def test_a_client_that_leaves_before_the_first_event_is_noticed(stack: AsyncExitStack) -> None:
    """Waiting for the first token holds no worker beyond the call."""
    gateway, (worker,) = await start(stack, [HANG])
    call = gateway.stub.Generate(text_request())
    await worker.called.wait()
    call.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await worker.cancelled.wait()


async def test_the_worker_is_given_the_time_that_is_left(stack: AsyncExitStack) -> None:
    """The call's deadline is the worker's deadline, less the margin for an answer."""
    gateway, (worker,) = await start(stack, answer("a"))
    await gateway.generate(text_request(), timeout=100)
    # grpc-timeout carries three digits or so, and core rounds up.
    assert 50 < worker.time_remaining_s[0] < 101


async def test_a_call_without_a_deadline_gets_the_longest_duration() -> None:
    """No call runs for ever."""
    async with (
        serving(ScriptedWorker(scripts=[[HANG]])) as worker,
        running_gateway(worker.target, max_duration_s=0.2) as gateway,
    ):
        error = await gateway.error(text_request())
        assert ("DEADLINE_EXCEEDED", grpc.StatusCode.DEADLINE_EXCEEDED) == (error.reason, error.code)
        if worker.jobs:  # on a busy machine the time may be over before one is there
            await worker.cancelled.wait()


async def test_a_bad_request_makes_no_worker_call(stack: AsyncExitStack) -> None:
    """What is refused at the door never reaches a worker."""
    gateway, (worker,) = await start(stack, answer("a"))
    error = await gateway.error(text_request(temperature=9.0, max_output_tokens=0))
    assert ("INVALID_REQUEST", []) == (error.reason, worker.jobs)
    assert ["sampling.max_output_tokens", "sampling.temperature"] == sorted(v.field for v in error.violations)


async def test_a_request_larger_than_every_pool_makes_no_worker_call(stack: AsyncExitStack) -> None:
    """Waiting would not help, so that it is refused as a bad argument."""
    worker = ScriptedWorker()
    worker.load.total_block_count = worker.load.free_block_count = 4
    await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(worker.target))
    error = await gateway.error(text_request(max_output_tokens=100))
    assert ("KV_POOL_EXCEEDED", []) == (error.reason, worker.jobs)


async def test_the_job_is_what_the_worker_needs_to_know(stack: AsyncExitStack) -> None:
    """Prompt, checkpoint, limits and trace context; token ids are always asked for."""
    gateway, (worker,) = await start(stack, answer("a"))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await gateway.generate(text_request(), metadata=(("x-request-id", "r.1"), ("traceparent", trace)))
    (job,) = worker.jobs
    assert ("r.1", worker.checkpoint_sha256, 8) == (
        job.response_id,
        job.checkpoint_sha256,
        job.sampling.max_output_tokens,
    )
    assert job.prompt_token_ids
    assert job.output.include_token_ids
    assert trace[3:35] == worker.metadata[0]["traceparent"][3:35]


@pytest.mark.parametrize("request_id", ["", "no spaces", "x" * 129, "a/b"])
async def test_an_unusable_request_id_is_replaced(stack: AsyncExitStack, request_id: str) -> None:
    """What could not stand in a log line is not echoed."""
    gateway, (worker,) = await start(stack, answer("a"))
    await gateway.generate(text_request(), metadata=(("x-request-id", request_id),))
    assert 32 == len(worker.jobs[0].response_id)
