from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_worker import RunningWorker, running_worker
from tests.fakes.scripted_engine import ScriptedEngine
from tidegate.client.health import WORKER
from tidegate.inference.v1 import inference_service_pb2
from tidegate.rpc.status import RpcError
from worker.config import WorkerSettings
from worker.engine import EngineDeadError, EngineError, EngineFinish, EngineOutput, FinishReason

pytestmark = pytest.mark.usefixtures("data_plane")

_NOT_SERVING, _SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING


def _settings(*, stall_after_s: float = 600) -> WorkerSettings:
    """Made in each test, for its data plane."""
    return WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=1, stall_after_s=stall_after_s)


async def _error(call: AsyncIterable[inference_service_pb2.GenerateResponse]) -> RpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        async for _ in call:
            pass
    return RpcError.from_call(failure.value)


async def _until_health(worker: RunningWorker, status: int) -> None:
    stub: Any = health_pb2_grpc.HealthStub(worker.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=WORKER))
    async with asyncio.timeout(PATIENCE_S):
        async for response in watch:
            if response.status == status:
                break
    watch.cancel()


async def test_engine_error_fails_one_request_and_frees_its_blocks() -> None:
    """A request that the engine fails on ends with ENGINE_ERROR; the worker goes on."""
    engine = ScriptedEngine((EngineOutput(token_ids=(7,), text="a"),), error=EngineError("no"))
    async with running_worker(_settings(), lambda *_: engine) as worker:
        error = await _error(worker.stub.Generate(worker.request()))

        assert (grpc.StatusCode.INTERNAL, "ENGINE_ERROR") == (error.code, error.reason)
        assert 0 == (await worker.load()).reserved_block_count
        assert not worker.life.done()


async def test_dead_engine_fails_calls_and_ends_the_process_with_an_error() -> None:
    """Once the engine is gone, calls fail with ENGINE_DEAD and the exit code is 1."""
    engine = ScriptedEngine((), error=EngineDeadError("gone"))
    async with running_worker(_settings(), lambda *_: engine) as worker:
        error = await _error(worker.stub.Generate(worker.request()))

        assert (grpc.StatusCode.UNAVAILABLE, "ENGINE_DEAD") == (error.code, error.reason)
        assert 1 == await worker.life


async def test_engine_that_dies_idle_ends_the_process() -> None:
    """Nobody has to ask for a generation before the death is noticed."""
    engine = ScriptedEngine()
    async with running_worker(_settings(), lambda *_: engine) as worker:
        engine.is_dead = True

        assert 1 == await worker.life


async def test_stalled_engine_is_not_serving_until_it_steps_again() -> None:
    """Work without a step makes the worker unhealthy and refuse calls; steps make it healthy."""
    engine = ScriptedEngine((EngineOutput(token_ids=(7,), text="a"),), hangs=True)

    async def step() -> None:
        while True:
            engine.step()
            await asyncio.sleep(0.01)

    async with running_worker(_settings(stall_after_s=1), lambda *_: engine) as worker:
        call = worker.stub.Generate(worker.request())
        await call.read()
        await _until_health(worker, _NOT_SERVING)
        error = await _error(worker.stub.Generate(worker.request()))
        stepping = asyncio.create_task(step())
        await _until_health(worker, _SERVING)
        stepping.cancel()
        call.cancel()

    assert (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING") == (error.code, error.reason)


async def test_cancel_aborts_the_engine_job() -> None:
    """The engine is told that nobody waits any more."""
    engine = ScriptedEngine((EngineOutput(token_ids=(7,), text="a"),), hangs=True)
    async with running_worker(_settings(), lambda *_: engine) as worker:
        call = worker.stub.Generate(worker.request())
        await call.read()
        call.cancel()
        await asyncio.wait_for(engine.idle.wait(), PATIENCE_S)

    assert [job.job_id for job in engine.jobs] == engine.aborted


async def test_cancel_ends_a_write_that_waits_for_its_client() -> None:
    """A call whose client reads nothing more gives its job and its blocks back when it is cancelled."""
    engine = ScriptedEngine((EngineOutput(token_ids=(7,), text="x" * 65_536),) * 2_000)  # far beyond any window
    async with running_worker(_settings(), lambda *_: engine) as worker:
        call = worker.stub.Generate(worker.request())
        await call.read()
        call.cancel()
        await asyncio.wait_for(engine.idle.wait(), PATIENCE_S)

        assert ["job-1"] == engine.aborted
        assert 0 == (await worker.load()).reserved_block_count


async def test_unforeseen_error_tells_nothing_of_its_text() -> None:
    """A bug is INTERNAL; its text is for the log."""
    engine = ScriptedEngine((), error=LookupError("secret"))
    async with running_worker(_settings(), lambda *_: engine) as worker:
        error = await _error(worker.stub.Generate(worker.request()))

    assert (grpc.StatusCode.INTERNAL, "INTERNAL") == (error.code, error.reason)
    assert "secret" not in error.message


async def test_constraint_is_checked_before_and_after_the_engine() -> None:
    """A regex with a syntax error is refused by field; a text that a good one does not match is an error."""
    engine = ScriptedEngine(
        (EngineOutput(token_ids=(7,), text="4a", finish=EngineFinish(reason=FinishReason.STOP)),),
        obeys_constraints=True,
    )
    async with running_worker(_settings(), lambda *_: engine) as worker:
        rejected = await _error(worker.stub.Generate(worker.request(constraint={"regex": "(a"})))
        assert [] == engine.jobs
        violated = await _error(worker.stub.Generate(worker.request(constraint={"regex": "[0-9]+"})))

    assert (grpc.StatusCode.INVALID_ARGUMENT, "CONSTRAINT_REJECTED") == (rejected.code, rejected.reason)
    assert ["constraint.regex"] == [violation.field for violation in rejected.violations]
    assert (grpc.StatusCode.INTERNAL, "CONSTRAINT_VIOLATED") == (violated.code, violated.reason)


async def test_seed_is_refused_where_the_engine_has_none() -> None:
    """An engine that cannot seed is never given a seed: it would be the end of vLLM on a CPU."""
    engine = ScriptedEngine()
    async with running_worker(_settings(), lambda *_: engine) as worker:
        request = worker.request()
        request.sampling.seed = 1
        error = await _error(worker.stub.Generate(request))

    assert ["sampling.seed"] == [violation.field for violation in error.violations]
