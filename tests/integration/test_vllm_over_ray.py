"""A worker whose engine is in two parts, tensor parallel over Ray: all that is not the GPUs'."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_ray import install_ray, running_ray
from tests.fakes.service_process import service_process
from tests.fakes.tiny_models import one_thread, write_tiny_model
from tidegate.rpc.token_ids import packed
from tidegate.worker.v1 import worker_service_pb2, worker_service_pb2_grpc

# vLLM is imported four times, on few cores beside other tests.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

_READY_WITHIN_S = 400


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """For the model's size."""
    with one_thread():
        yield


async def test_an_engine_over_ray_serves_and_ends_with_its_parts(stack: AsyncExitStack, tmp_path: Path) -> None:
    """Two actors compute one model; when one of them is killed the worker ends, by its exit code not in peace."""
    model = write_tiny_model(tmp_path / "tiny", num_attention_heads=2, num_key_value_heads=2)
    (model / "canaries.json").write_text("[]", encoding="utf-8")  # no gateway will ask
    ray = await stack.enter_async_context(running_ray(await asyncio.to_thread(install_ray, tmp_path / "venv")))
    worker = await stack.enter_async_context(
        service_process(
            "worker",
            *("--engine", "vllm", "--model-dir", str(model), "--eager", "--kv-cache-bytes", "20000000"),
            *("--tensor-parallel-size", "2", "--distributed-executor-backend", "ray"),
            python=ray.python,
            environment=ray.environment,
            ready_within_s=_READY_WITHIN_S,
        )
    )
    async with grpc.aio.insecure_channel(worker.address) as channel:
        stub: worker_service_pb2_grpc.WorkerServiceAsyncStub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        served = await stub.GetModel(worker_service_pb2.GetModelRequest())
        request = worker_service_pb2.GenerateRequest(
            response_id="response-1",
            checkpoint_sha256=served.model.digests.checkpoint_sha256,
            prompt_token_ids=packed([3, 4, 5]),
        )
        request.sampling.max_output_tokens = request.sampling.min_output_tokens = 12
        request.output.include_token_ids = True
        tokens = [
            token async for response in stub.Generate(request, timeout=PATIENCE_S) for token in response.delta.token_ids
        ]
    assert 12 == len(tokens)
    assert 2 == len(ray.parts)
    os.kill(min(ray.parts), signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        assert 0 != await worker.process.wait()
