from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import RunningGateway, running_gateway, text_of, text_request
from tests.fakes.scripted_worker import HANG, ScriptedWorker, answer, beginning, serving
from tidegate.inference.v1 import chat_pb2, generation_pb2, inference_service_pb2
from tidegate.rpc.status import RpcError
from tidegate.rpc.token_ids import unpacked

pytestmark = pytest.mark.usefixtures("data_plane")


async def one_worker(stack: AsyncExitStack, worker: ScriptedWorker, **settings: Any) -> RunningGateway:
    """A gateway with ``settings`` and just this worker."""
    await stack.enter_async_context(serving(worker))
    return await stack.enter_async_context(running_gateway(worker.target, **settings))


async def test_models_are_listed_by_name_in_pages(stack: AsyncExitStack) -> None:
    """Every model once, whatever the page size."""
    names = ["b", "a", "c"]
    targets = [(await stack.enter_async_context(serving(ScriptedWorker(name=name)))).target for name in names]
    gateway = await stack.enter_async_context(running_gateway(*targets))
    pages, token = [], ""
    while True:
        page = await gateway.stub.ListModels(inference_service_pb2.ListModelsRequest(page_size=2, page_token=token))
        pages.append([model.name for model in page.models])
        if not (token := page.next_page_token):
            break
    assert [["a", "b"], ["c"]] == pages
    everything = await gateway.stub.ListModels(inference_service_pb2.ListModelsRequest())
    assert ["a", "b", "c"] == [model.name for model in everything.models]


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (inference_service_pb2.ListModelsRequest(page_size=-1), ["page_size"]),
        (inference_service_pb2.ListModelsRequest(page_size=1001, page_token="?"), ["page_size", "page_token"]),
        (inference_service_pb2.ListModelsRequest(page_token="_w=="), ["page_token"]),
    ],
)
async def test_bad_pages_are_named(
    stack: AsyncExitStack, request_: inference_service_pb2.ListModelsRequest, fields: list[str]
) -> None:
    """All violations at once, here too."""
    gateway = await one_worker(stack, ScriptedWorker())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.stub.ListModels(request_)
    assert fields == [violation.field for violation in RpcError.from_call(raised.value).violations]


async def test_a_model_is_described_as_its_worker_did(stack: AsyncExitStack) -> None:
    """Limits, digests and capabilities."""
    gateway = await one_worker(stack, ScriptedWorker())
    model = (await gateway.stub.GetModel(inference_service_pb2.GetModelRequest(name="m"))).model
    assert (1000, 1024, "c" * 64) == (
        model.limits.context_length,
        model.limits.kv_pool_token_count,
        model.digests.checkpoint_sha256,
    )
    assert model.capabilities.chat
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.stub.GetModel(inference_service_pb2.GetModelRequest(name="other"))
    error = RpcError.from_call(raised.value)
    assert (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND") == (error.code, error.reason)
    assert ("other", ("tidegate.Model", "other")) == (error.metadata["model"], error.resource)  # as it was asked for


async def test_tokenize_gives_what_generate_sends(stack: AsyncExitStack) -> None:
    """The same ids, the text they were made of, and the room behind them."""
    worker = ScriptedWorker()
    gateway = await one_worker(stack, worker)
    message = chat_pb2.ChatMessage(role=chat_pb2.CHAT_ROLE_USER, content="hello")
    chat = chat_pb2.ChatPrompt(messages=[message])
    tokenized = await gateway.stub.Tokenize(inference_service_pb2.TokenizeRequest(model="m", chat=chat))
    await gateway.generate(inference_service_pb2.GenerateRequest(model="m", chat=chat))
    assert unpacked(worker.jobs[0].prompt_token_ids) == list(tokenized.token_ids)
    assert "<|im_start|>user\nhello<|im_end|>" in tokenized.rendered_prompt
    assert (len(tokenized.token_ids), 999) == (
        tokenized.token_count,
        min(999, tokenized.max_output_tokens + tokenized.token_count),
    )


async def test_more_calls_than_the_gateway_may_hold_are_refused(stack: AsyncExitStack) -> None:
    """With a reason and a time to come back; a place that is given back is taken again."""
    worker = ScriptedWorker(scripts=[[*beginning("a"), HANG], answer("b")])
    gateway = await one_worker(stack, worker, max_in_flight=1)
    held = gateway.stub.Generate(text_request())
    await held.read()
    error = await gateway.error(text_request())
    assert ("ADMISSION_QUEUE_FULL", {"limit": "1"}) == (error.reason, error.metadata)
    assert error.retry_after_s is not None
    held.cancel()
    await gateway.gateway.until_idle()
    responses, _ = await gateway.generate(text_request())
    assert ("b", 2) == (text_of(responses), len(worker.jobs))


async def test_streams_that_outlast_the_grace_are_ended(stack: AsyncExitStack) -> None:
    """A shutdown has an end, of which clients are told; the worker's blocks are free after it."""
    worker = ScriptedWorker(scripts=[[*beginning("a"), HANG]])
    gateway = await one_worker(stack, worker, drain_grace_s=0.1)
    held = aiter(gateway.stub.Generate(text_request()))
    await anext(held)
    gateway.gateway.stop()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        [response async for response in held]
    error = RpcError.from_call(raised.value)
    assert ("DRAINING", grpc.StatusCode.UNAVAILABLE) == (error.reason, error.code)
    async with asyncio.timeout(PATIENCE_S):
        await gateway.life
        await worker.cancelled.wait()


async def test_a_deadline_that_is_too_short_clamps_or_refuses(stack: AsyncExitStack) -> None:
    """By the worker's measured rates: a token a second for this request."""
    worker = ScriptedWorker()
    worker.load.prefill_tokens_per_second, worker.load.decode_tokens_per_second = 1e6, 1.0
    gateway = await one_worker(stack, worker)
    await gateway.generate(text_request(max_output_tokens=200), timeout=100)
    (job,) = worker.jobs
    assert job.is_budget_clamped
    assert 45 <= job.sampling.max_output_tokens <= 90
    request = text_request(max_output_tokens=200)
    request.short_deadline_policy = generation_pb2.SHORT_DEADLINE_POLICY_REFUSE
    error = await gateway.error(request, timeout=100)
    assert ("DEADLINE_TOO_SHORT", "200", 1) == (error.reason, error.metadata["max_output_tokens"], len(worker.jobs))


async def test_reflection_names_the_services(stack: AsyncExitStack) -> None:
    """Generic clients need no stubs."""
    gateway = await one_worker(stack, ScriptedWorker())
    channel: Any = gateway.channel  # the stub's types know the blocking one only
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    async for response in call:
        names = {service.name for service in response.list_services_response.service}
        assert {"tidegate.inference.v1.InferenceService", "grpc.health.v1.Health"} <= names


def test_the_gateway_loads_no_model_library() -> None:
    """Import rules do not look inside third-party packages; a process does."""
    code = "import sys, gateway.app; print([m for m in ('torch', 'transformers', 'vllm') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "[]" == loaded.stdout.strip()
