from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from gateway.replay import main, replay
from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import running_gateway, text_of, text_request
from tests.fakes.running_worker import running_worker
from tests.fakes.scripted_worker import HANG, ScriptedWorker, answer, at_capacity, beginning, serving
from worker.config import WorkerSettings

# How much slower than the machine. A prefill takes 3.4 s so; 400 makes it one of 34 s.
SLOW = float(os.environ.get("TIDEGATE_TEST_SLOW", "40"))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - they have no event for a test
            await asyncio.sleep(0.005)


async def test_a_worker_that_is_named_no_more_leaves_after_its_streams(stack: AsyncExitStack, tmp_path: Path) -> None:
    """Its last stream comes to its end; new jobs go to the worker that was named in its place."""
    old = await stack.enter_async_context(serving(ScriptedWorker(scripts=[[*beginning("a"), HANG]])))
    new = await stack.enter_async_context(serving(ScriptedWorker(scripts=[answer("b")])))
    workers = tmp_path / "workers"
    workers.write_text(old.target)
    gateway = await stack.enter_async_context(running_gateway(f"file:{workers}"))
    call = gateway.stub.Generate(text_request())
    await call.read()
    workers.write_text(json.dumps([new.target]))
    fleet = gateway.gateway.fleet
    await until(lambda: [new.target] == [seat.worker_id for seat in fleet.seats])
    responses, _ = await gateway.generate(text_request())
    assert "b" == text_of(responses)
    assert not call.done()
    assert not old.cancelled.is_set()
    call.cancel()
    upstreams = gateway.gateway._upstreams
    assert upstreams is not None
    await until(lambda: {new.target} == set(upstreams._channels))


async def test_a_recorded_run_is_replayed_bit_for_bit(stack: AsyncExitStack, tmp_path: Path) -> None:
    """Queue, budgets, routing, retries, breakers and limits; a record that was tampered with is found."""
    full, lost, good = (
        ScriptedWorker(scripts=[[at_capacity()]]),
        ScriptedWorker(scripts=[[at_capacity()], answer("a")]),
        ScriptedWorker(),
    )
    for worker in (full, lost, good):
        await stack.enter_async_context(serving(worker))
    log = tmp_path / "decisions.jsonl"
    async with running_gateway(full.target, lost.target, good.target, decision_log=log) as gateway:
        await asyncio.gather(*(gateway.generate(text_request("x" * 70 * number)) for number in range(1, 12)))
    lines = log.read_text().splitlines()
    kinds = {json.loads(line)["kind"] for line in lines}
    assert {"queue", "budget", "route", "retry", "breaker", "limit"} == kinds
    counts: Counter[str] = Counter()
    assert [] == list(replay(lines, counts))
    assert len(lines) == sum(counts.values())
    assert 0 == main([str(log)])
    route = next(line for line in lines if '"kind":"route"' in line)
    log.write_text(route.replace('"worker_id":"127', '"worker_id":"128') + "\nnonsense\n")
    assert 1 == main([str(log)])


async def test_a_stopped_worker_is_out_of_rotation_and_its_waiting_jobs_go_elsewhere(stack: AsyncExitStack) -> None:
    """Its reports stay out; the job that it was given has no first token yet."""
    stopped = ScriptedWorker(scripts=[[HANG]], heartbeat_s=60.0)
    other = ScriptedWorker(scripts=[answer("b")])
    other.load.pending_prefill_token_count = 100_000
    for worker in (stopped, other):
        await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(stopped.target, other.target))
    call = asyncio.create_task(gateway.generate(text_request()))
    await stopped.called.wait()
    responses, error = await call
    assert (None, "b") == (error, text_of(responses))


@pytest.mark.usefixtures("data_plane")
async def test_a_stopped_worker_is_replaced_in_the_streams_that_have_begun(stack: AsyncExitStack) -> None:
    """They do not wait for their deadline; its call is cancelled, so that it holds no blocks should it come back."""
    stopped = ScriptedWorker(scripts=[[*beginning("a"), HANG]], heartbeat_s=60.0, can_continue=True)
    other = ScriptedWorker(scripts=[answer("b")[1:]], can_continue=True)
    other.load.pending_prefill_token_count = 100_000
    for worker in (stopped, other):
        await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(stopped.target, other.target))
    responses, error = await gateway.generate(text_request())
    assert (None, "ab") == (error, text_of(responses))
    async with asyncio.timeout(PATIENCE_S):
        await stopped.cancelled.wait()


@pytest.mark.usefixtures("data_plane")
async def test_a_stalled_engine_is_replaced_in_the_streams_that_have_begun(stack: AsyncExitStack) -> None:
    """Its worker reports, but the engine makes no step."""
    stalled = ScriptedWorker(scripts=[[*beginning("a"), HANG]], can_continue=True)
    other = ScriptedWorker(scripts=[answer("b")[1:]], can_continue=True)
    other.load.pending_prefill_token_count = 100_000
    for worker in (stalled, other):
        await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(stalled.target, other.target))
    call = aiter(gateway.stub.Generate(text_request()))
    begun = [await anext(call) for _ in range(2)]
    await stalled.push(engine_step_age={"seconds": 60})
    assert "ab" == text_of([*begun, *[response async for response in call]])


@pytest.mark.usefixtures("data_plane")
async def test_a_worker_that_was_silent_is_come_back_to_over_new_connections(stack: AsyncExitStack) -> None:
    """The old ones may be dead, which only their keepalive would tell; jobs that run there stay."""
    worker = ScriptedWorker(scripts=[[*beginning("a"), HANG], answer("b")], heartbeat_s=60.0)
    await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(worker.target))
    held = gateway.stub.Generate(text_request())
    await held.read()
    fleet = gateway.gateway.fleet
    (before,) = fleet.seats
    await until(lambda: bool(fleet.seats) and before is not fleet.seats[0])
    responses, error = await gateway.generate(text_request())
    assert (None, "b") == (error, text_of(responses))
    assert before.client is not fleet.seats[0].client
    assert not held.done()
    held.cancel()
    await until(lambda: not before.in_flight)
    await worker.push()
    await until(lambda: grpc.ChannelConnectivity.SHUTDOWN is before.client._channel.get_state())


async def test_a_worker_busy_with_a_long_prefill_is_left_in_peace(stack: AsyncExitStack) -> None:
    """One engine step lasts for several times what a stall lasts, with another worker idle beside it."""
    slow = WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=5, sim_time_scale=SLOW)
    workers = [await stack.enter_async_context(running_worker(slow)) for _ in range(2)]
    gateway = await stack.enter_async_context(running_gateway(*(worker.worker.address for worker in workers)))
    seats = gateway.gateway.fleet.seats
    await asyncio.gather(*(gateway.generate(text_request("x" * 200, model="sim", max_output_tokens=1)) for _ in "ab"))
    responses, error = await gateway.generate(text_request("x" * 3500, model="sim", max_output_tokens=2))
    assert error is None
    assert 0 == responses[-1].finished.continuation_count
    assert seats == gateway.gateway.fleet.seats
    assert {0} == {breaker.opened_count for seat in seats for breaker in seat.standing.breakers.values()}


async def test_a_lone_worker_that_stops_keeps_its_streams(stack: AsyncExitStack) -> None:
    """Nobody could go on with them: it may come back before their deadline."""
    stopped = ScriptedWorker(scripts=[[*beginning("a"), HANG]], heartbeat_s=60.0, can_continue=True)
    await stack.enter_async_context(serving(stopped))
    gateway = await stack.enter_async_context(running_gateway(stopped.target))
    call = gateway.stub.Generate(text_request())
    await call.read()
    fleet = gateway.gateway.fleet
    (seat,) = fleet.seats
    await until(lambda: seat not in fleet.seats)
    assert 1 == seat.in_flight
    assert not stopped.cancelled.is_set()
    call.cancel()
