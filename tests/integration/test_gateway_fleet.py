from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.workers.client import WorkerClient
from gateway.workers.errors import UnusableWorkerError, WorkerCallError
from gateway.workers.load_watch import watch_load
from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import running_gateway, text_of, text_request
from tests.fakes.scripted_worker import HANG, ScriptedWorker, answer, beginning, serving
from tidegate.client.health import GATEWAY, PROCESS, check_health
from tidegate.inference.v1 import inference_service_pb2

pytestmark = pytest.mark.usefixtures("data_plane")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - they have no event for a test
            await asyncio.sleep(0.005)


async def test_a_worker_that_renders_differently_gets_no_traffic(
    stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the canary and the first difference."""
    worker = ScriptedWorker()
    worker.canaries[1].token_ids[3] += 1
    await stack.enter_async_context(serving(worker))
    with caplog.at_level(logging.WARNING):
        gateway = await stack.enter_async_context(running_gateway(worker.target, ready=0))
        await until(lambda: "renders differently" in caplog.text)
    assert repr(worker.canaries[1].name) in caplog.text
    assert "token_ids at 3" in caplog.text
    assert "NO_WORKER_AVAILABLE" == (await gateway.error(text_request())).reason
    assert [] == worker.jobs


async def test_other_digests_under_the_same_name_are_refused(
    stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """Which of two checkpoints a client gets must not be chance; the log names both."""
    one = await stack.enter_async_context(serving(ScriptedWorker()))
    other = await stack.enter_async_context(serving(ScriptedWorker(checkpoint_sha256="d" * 64)))
    with caplog.at_level(logging.WARNING):
        gateway = await stack.enter_async_context(running_gateway(one.target, other.target, ready=1))
        await until(lambda: "is not used" in caplog.text)
    assert "c" * 64 in caplog.text
    assert "d" * 64 in caplog.text
    await gateway.generate(text_request())
    assert 1 == len(one.jobs) + len(other.jobs)


async def test_another_checkpoint_may_take_the_name_once_the_old_one_is_gone(stack: AsyncExitStack) -> None:
    """A roll-out that replaces all workers needs no restart of the gateway."""
    worker = await stack.enter_async_context(serving(ScriptedWorker()))
    gateway = await stack.enter_async_context(running_gateway(worker.target))
    worker.checkpoint_sha256, worker.sample_number = "d" * 64, 0
    await worker.end_watches()
    await until(lambda: gateway.gateway.fleet.models["m"].checkpoint_sha256 == "d" * 64)
    _, error = await gateway.generate(text_request())
    assert (None, "d" * 64) == (error, worker.jobs[0].checkpoint_sha256)


async def test_ten_workers_of_one_checkpoint_share_a_renderer(stack: AsyncExitStack) -> None:
    """The tokenizer is fetched and built once."""
    workers = [await stack.enter_async_context(serving(ScriptedWorker())) for _ in range(10)]
    gateway = await stack.enter_async_context(running_gateway(*(worker.target for worker in workers)))
    assert 1 == sum(worker.tokenizer_fetches for worker in workers)
    assert 1 == len({id(seat.model.renderer) for seat in gateway.gateway.fleet.seats})


async def test_a_tokenizer_directory_is_used_in_place_of_the_workers_files(stack: AsyncExitStack) -> None:
    """With --tokenizer-dir nothing is fetched."""
    worker = await stack.enter_async_context(serving(ScriptedWorker()))
    await stack.enter_async_context(running_gateway(worker.target, tokenizer_dir=Path("worker/sim_model")))
    assert 0 == worker.tokenizer_fetches


async def test_files_that_are_not_those_of_the_handshake_are_not_used(
    stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """A tokenizer with another digest is refused before it is built."""
    worker = await stack.enter_async_context(serving(ScriptedWorker(tokenizer_json=b"{}")))
    with caplog.at_level(logging.WARNING):
        await stack.enter_async_context(running_gateway(worker.target, ready=0))
        await until(lambda: "its tokenizer.json has the digest" in caplog.text)


async def test_a_restarted_worker_shakes_hands_again(stack: AsyncExitStack) -> None:
    """A sample number that falls means another process."""
    worker = await stack.enter_async_context(serving(ScriptedWorker()))
    await stack.enter_async_context(running_gateway(worker.target))
    worker.sample_number = -1
    await worker.push()
    await until(lambda: worker.handshakes == 2)


async def test_a_draining_worker_gets_no_more_jobs(stack: AsyncExitStack) -> None:
    """One report is enough."""
    draining = await stack.enter_async_context(serving(ScriptedWorker()))
    other = ScriptedWorker()
    other.load.free_block_count = 1
    await stack.enter_async_context(serving(other))
    gateway = await stack.enter_async_context(running_gateway(draining.target, other.target))
    await draining.push(is_draining=True)
    await gateway.until_workers(1)
    await gateway.generate(text_request())
    assert (0, 1) == (len(draining.jobs), len(other.jobs))


async def test_jobs_on_a_worker_whose_load_is_lost_go_on(stack: AsyncExitStack) -> None:
    """Leaving the rotation ends no stream."""
    worker = ScriptedWorker(scripts=[[*beginning("a"), HANG], answer("b")])
    await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(worker.target))
    call = gateway.stub.Generate(text_request())
    await call.read()
    await worker.end_watches()
    await until(lambda: worker.handshakes == 2)
    assert not worker.cancelled.is_set()
    assert not call.done()
    call.cancel()


async def test_reports_that_stay_out_make_the_load_stale(stack: AsyncExitStack) -> None:
    """A worker that says nothing is not believed to be idle."""
    worker = await stack.enter_async_context(serving(ScriptedWorker(heartbeat_s=60.0)))
    client = WorkerClient(worker.target)
    async with aclosing(watch_load(client, stale_after_s=1.0)) as loads:
        assert 64 == (await anext(loads)).free_blocks
        with pytest.raises(UnusableWorkerError, match="no load report for 1 s"):
            await anext(loads)
    await client.close()


async def test_health_follows_the_workers(stack: AsyncExitStack) -> None:
    """SERVING only while a worker serves a model; the process and the service answer alike."""
    worker = await stack.enter_async_context(serving(ScriptedWorker()))
    gateway = await stack.enter_async_context(running_gateway(worker.target))
    assert ["SERVING"] * 2 == [
        await check_health(gateway.channel, name, timeout_s=PATIENCE_S) for name in (PROCESS, GATEWAY)
    ]
    stub: Any = health_pb2_grpc.HealthStub(gateway.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=GATEWAY))
    assert health_pb2.HealthCheckResponse.SERVING == (await watch.read()).status
    await worker.push(is_draining=True)
    assert health_pb2.HealthCheckResponse.NOT_SERVING == (await watch.read()).status
    watch.cancel()


async def test_a_gateway_without_workers_says_so(stack: AsyncExitStack) -> None:
    """Nothing can be said of a model before a worker was seen, so that the client is told to come back."""
    gateway = await stack.enter_async_context(running_gateway("127.0.0.1:1", ready=0))
    assert "NOT_SERVING" == await check_health(gateway.channel, PROCESS, timeout_s=PATIENCE_S)
    error = await gateway.error(text_request())
    assert ("NO_WORKER_AVAILABLE", 1.0) == (error.reason, error.retry_after_s)
    assert [] == list((await gateway.stub.ListModels(inference_service_pb2.ListModelsRequest())).models)


async def test_a_model_whose_workers_are_away_is_known_but_not_available(stack: AsyncExitStack) -> None:
    """NOT_FOUND would tell the client not to come back."""
    worker = ScriptedWorker()
    async with serving(worker):
        gateway = await stack.enter_async_context(running_gateway(worker.target))
    await gateway.until_workers(0)
    assert "NO_WORKER_AVAILABLE" == (await gateway.error(text_request())).reason
    assert "MODEL_NOT_FOUND" == (await gateway.error(text_request(model="other"))).reason


async def test_a_worker_that_comes_back_is_used_again(stack: AsyncExitStack) -> None:
    """The same address is tried until a worker answers there."""
    worker = ScriptedWorker()
    async with serving(worker):
        gateway = await stack.enter_async_context(running_gateway(worker.target))
    await gateway.until_workers(0)
    again = await stack.enter_async_context(serving(ScriptedWorker(), target=worker.target))
    async with asyncio.timeout(PATIENCE_S):
        await gateway.until_workers(1)
    responses, _ = await gateway.generate(text_request())
    assert ("Paris.", 1) == (text_of(responses), len(again.jobs))


async def test_the_largest_pool_of_a_model_is_its_limit(stack: AsyncExitStack) -> None:
    """A request that fits the larger worker only is accepted, and goes there."""
    small, large = ScriptedWorker(), ScriptedWorker()
    small.load.total_block_count = small.load.free_block_count = 4
    large.load.free_block_count = 20
    for worker in (small, large):
        await stack.enter_async_context(serving(worker))
    gateway = await stack.enter_async_context(running_gateway(small.target, large.target))
    response = await gateway.stub.GetModel(inference_service_pb2.GetModelRequest(name="m"))
    assert 1024 == response.model.limits.kv_pool_token_count
    _, error = await gateway.generate(text_request(max_output_tokens=200))
    assert (None, 0, 1) == (error, len(small.jobs), len(large.jobs))


async def test_a_call_to_a_dead_address_fails_as_a_worker_call_does() -> None:
    """Transport errors come in the same form as a worker's own."""
    client = WorkerClient("127.0.0.1:1")
    with pytest.raises(WorkerCallError) as raised:
        await client.get_tokenizer()
    assert grpc.StatusCode.UNAVAILABLE is raised.value.error.code
    await client.close()
