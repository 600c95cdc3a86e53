from __future__ import annotations

import asyncio
import os
import random
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.clock import LeapingClock
from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.running_worker import RunningWorker, running_worker
from tidegate.inference.v1 import chat_pb2, generation_pb2, inference_service_pb2
from worker.config import WorkerSettings
from worker.engine import Engine
from worker.engines import build_engine
from worker.sim_engine import SimEngine
from worker.sim_language import SimLanguage
from worker.sim_profile import load_profile

pytestmark = pytest.mark.usefixtures("data_plane")

# The goal is 5,000; the default keeps a run of all tests short.
STORM = int(os.environ.get("TIDEGATE_TEST_STORM", "500"))

LANGUAGE = SimLanguage(Path("worker/sim_model/tokenizer.json").read_bytes(), seed=0, mean_output_tokens=None)


async def start(
    stack: AsyncExitStack, *, workers: int = 1, max_wait_s: float = PATIENCE_S, **settings: Any
) -> tuple[RunningGateway, list[RunningWorker]]:
    """A gateway and sim workers, with ``settings`` for the workers."""
    settings = dict[str, Any](engine="sim", listen="127.0.0.1:0", drain_grace_s=1, sim_time_scale=0.01) | settings
    running = [await stack.enter_async_context(running_worker(WorkerSettings(**settings))) for _ in range(workers)]
    gateway = await stack.enter_async_context(
        running_gateway(*(worker.worker.address for worker in running), max_wait_s=max_wait_s)
    )
    return gateway, running


async def test_the_tokens_are_those_that_the_engine_promises(stack: AsyncExitStack) -> None:
    """From a conversation to its answer, token for token, with the usage that belongs to it."""
    gateway, _ = await start(stack)
    message = chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_USER, content="What is the capital of France?")
    request = inference_service_pb2.GenerateRequest(model="sim", chat=chat_pb2.ChatPrompt(messages=[message]))
    request.sampling.max_output_tokens, request.sampling.seed = 50, 7
    responses, error = await gateway.generate(request)
    prompt_tokens = responses[0].started.prompt_token_count
    expected = [LANGUAGE.token(7, position) for position in range(prompt_tokens, prompt_tokens + 50)]
    assert error is None
    assert expected == [token for response in responses for token in response.delta.token_ids]
    assert "".join(map(LANGUAGE.text, expected)) == text_of(responses)
    finished = responses[-1].finished
    assert (prompt_tokens, 50) == (finished.usage.prompt_token_count, finished.usage.output_token_count)
    assert generation_pb2.FINISH_REASON_LENGTH == finished.reason


async def test_a_report_after_its_admission_has_seen_a_job(stack: AsyncExitStack) -> None:
    """From then on the worker counts it, long before it has ended, and the gateway does not count it again."""
    gateway, _ = await start(stack, sim_time_scale=1)
    (seat,) = gateway.gateway.fleet.seats
    call = gateway.stub.Generate(text_request(model="sim", max_output_tokens=3000))
    await call.read()
    async with asyncio.timeout(PATIENCE_S):
        while seat.unseen.requests:  # noqa: ASYNC110 - a window for tests alone is none
            await asyncio.sleep(0.005)
    assert 1 == seat.in_flight
    assert seat.load.reserved_blocks
    call.cancel()


async def test_many_streams_at_once_do_not_mix(stack: AsyncExitStack) -> None:
    """Each of 60 streams over two workers has its own tokens, without a gap or a repetition."""
    gateway, workers = await start(stack, workers=2)

    async def one(seed: int) -> None:
        responses, error = await gateway.generate(text_request(model="sim", seed=seed, max_output_tokens=40))
        begin = responses[0].started.prompt_token_count
        expected = [LANGUAGE.token(seed, position) for position in range(begin, begin + 40)]
        assert (expected, None) == ([token for response in responses for token in response.delta.token_ids], error)

    await asyncio.gather(*(one(seed) for seed in range(60)))
    loads = [await worker.load() for worker in workers]
    assert [0, 0] == [load.reserved_block_count for load in loads]


async def test_a_cancelled_call_frees_its_blocks(stack: AsyncExitStack) -> None:
    """Wherever in its life the stream is."""
    gateway, (worker,) = await start(stack, sim_time_scale=1)
    for responses_before_cancel in (0, 1, 2, 5, 9):
        call = gateway.stub.Generate(text_request(model="sim", max_output_tokens=3000))
        for _ in range(responses_before_cancel):
            await call.read()
        call.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await gateway.gateway.until_idle()
            while (load := await worker.load()).reserved_block_count:
                pass
        assert (load.total_block_count, 0) == (load.free_block_count, load.running_request_count)


async def test_requests_go_where_the_blocks_are(stack: AsyncExitStack) -> None:
    """Two workers of one size share 16 long streams, though their reports are late by nature."""
    gateway, workers = await start(stack, workers=2, sim_time_scale=1)
    calls = [gateway.stub.Generate(text_request(model="sim", max_output_tokens=2000)) for _ in range(16)]
    await asyncio.gather(*(call.read() for call in calls))
    loads = [await worker.load() for worker in workers]
    for call in calls:
        call.cancel()
    counts = [load.running_request_count for load in loads]
    assert 16 == sum(counts)
    assert min(counts) >= 4


async def test_a_request_waits_until_another_ends(stack: AsyncExitStack) -> None:
    """Nothing is refused that has room within its wait; it starts when the blocks come free."""
    gateway, _ = await start(stack, kv_block_count=8, sim_time_scale=0.1)
    first, second = (gateway.generate(text_request(model="sim", max_output_tokens=110)) for _ in range(2))
    (_, error), (responses, other) = await asyncio.gather(first, second)
    assert (None, None, 110) == (error, other, responses[-1].finished.usage.output_token_count)


async def test_a_full_fleet_refuses_with_a_time_to_come_back(stack: AsyncExitStack) -> None:
    """At once if the wait is foreseen, otherwise after it; the stream that is in keeps its blocks."""
    gateway, _ = await start(stack, max_wait_s=1.5, kv_block_count=24, sim_time_scale=10)
    held = gateway.stub.Generate(text_request(model="sim", max_output_tokens=360))  # 14 s
    await held.read()
    error = await gateway.error(text_request(model="sim", max_output_tokens=110))
    assert error.reason in {"KV_EXHAUSTED", "WAIT_TOO_LONG"}
    assert "max_wait" == error.metadata["limit"]
    assert error.retry_after_s is not None
    assert error.retry_after_s > 0
    held.cancel()


async def test_a_clamped_output_ends_by_budget(stack: AsyncExitStack) -> None:
    """A deadline too short for the output gets what fits, and an answer that says so.

    The engine makes some 25 tokens a second by its own clock, which the worker's warm-up has measured; by the client's
    it needs nearly none of its minute.
    """
    clock, deadline_s = LeapingClock(), 60.0
    profile = load_profile("h200-llama3-8b-awq")

    def make(*_: Any) -> Engine:
        return SimEngine(profile, LANGUAGE, time_scale=10, clock=clock, sleep=clock.sleep)

    settings = WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=1)
    worker = await stack.enter_async_context(running_worker(settings, make))
    gateway = await stack.enter_async_context(running_gateway(worker.worker.address))
    before_s = clock.slept_s
    request = text_request(model="sim", max_output_tokens=4000)
    responses, error = await gateway.generate(request, timeout=deadline_s)
    assert (None, generation_pb2.FINISH_REASON_BUDGET) == (error, responses[-1].finished.reason)
    assert 0 < responses[-1].finished.usage.output_token_count < 4000
    assert clock.slept_s - before_s < deadline_s


async def test_calls_whose_deadlines_are_too_short_waste_nothing(stack: AsyncExitStack) -> None:
    """Of the tokens asked for with 1 to 50 ms to go, not one in a hundred is made for nobody."""
    engines = []

    def make(*arguments: Any) -> Engine:
        engines.append(build_engine(*arguments))
        return engines[0]

    settings = WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=1)
    worker = await stack.enter_async_context(running_worker(settings, make))
    gateway = await stack.enter_async_context(running_gateway(worker.worker.address))
    for _ in range(4):
        await gateway.generate(text_request(model="sim", max_output_tokens=20))  # so that rates are measured
    before, rng, turns = engines[0].load().output_tokens_generated, random.Random(1), asyncio.Semaphore(20)

    async def one() -> int:
        async with turns:
            request = text_request(model="sim", max_output_tokens=50)
            responses, error = await gateway.generate(request, timeout=rng.uniform(0.001, 0.05))
            return responses[-1].finished.usage.output_token_count if error is None else 0

    delivered = sum(await asyncio.gather(*(one() for _ in range(STORM))))
    await gateway.gateway.until_idle()
    made = engines[0].load().output_tokens_generated - before
    assert made - delivered <= 0.01 * STORM * 50
