from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.replay import main, replay
from tests.fakes.running_gateway import running_gateway, text_of, text_request
from tests.fakes.scripted_worker import HANG, ScriptedWorker, answer, at_capacity, beginning, serving


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks bring about."""
    async with asyncio.timeout(10):
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


async def test_a_recorded_run_is_replayed_bit_for_bit(stack: AsyncExitStack, tmp_path: Path) -> None:
    """Routing and retries; a record that was tampered with is found."""
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
    assert {"route", "retry"} == kinds
    counts: Counter[str] = Counter()
    assert [] == list(replay(lines, counts))
    assert len(lines) == sum(counts.values())
    assert 0 == main([str(log)])
    log.write_text(lines[0].replace('"worker_id":"127', '"worker_id":"128') + "\nnonsense\n")
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
