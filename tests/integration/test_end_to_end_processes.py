from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_gateway import Response, running_gateway, text_of, text_request
from tests.fakes.service_process import ServiceProcess, service_process
from tidegate.client.health import GATEWAY, check_health
from tidegate.inference.v1 import inference_service_pb2_grpc
from tidegate.rpc.server import CHANNEL_OPTIONS
from tidegate.rpc.status import RpcError
from worker.sim_language import SimLanguage

pytestmark = pytest.mark.usefixtures("data_plane")

SIM = ("--engine", "sim")
LANGUAGE = SimLanguage(Path("worker/sim_model/tokenizer.json").read_bytes(), seed=0, mean_output_tokens=None)

# The goal is 6,000; the default keeps a run of all tests short.
BURST = int(os.environ.get("TIDEGATE_TEST_BURST", "2000"))


async def start(stack: AsyncExitStack, *worker_arguments: str) -> tuple[ServiceProcess, ServiceProcess]:
    """A gateway that serves, and its worker."""
    worker = await stack.enter_async_context(service_process("worker", *SIM, *worker_arguments))
    gateway = await stack.enter_async_context(service_process("gateway", "--workers", worker.address))
    async with grpc.aio.insecure_channel(gateway.address) as channel, asyncio.timeout(PATIENCE_S):
        while "SERVING" != await check_health(channel, GATEWAY, timeout_s=PATIENCE_S):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    return gateway, worker


async def connect(stack: AsyncExitStack, target: str) -> inference_service_pb2_grpc.InferenceServiceAsyncStub:
    """A client with a connection of its own."""
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS))
    stub: inference_service_pb2_grpc.InferenceServiceAsyncStub
    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
    return stub


def tokens_of(responses: list[Response]) -> list[int]:
    """The output's tokens."""
    return [token for response in responses for token in response.delta.token_ids]


async def take(stream: AsyncIterator[Response], responses: list[Response]) -> None:
    """Add to ``responses`` what comes, also before an error."""
    async for response in stream:
        responses.append(response)  # noqa: PERF401 - an error would lose those before it


async def test_a_burst_is_served_or_refused_with_a_reason(stack: AsyncExitStack) -> None:
    """Of all calls opened at once none is lost, and none is cancelled by grpc's own limits."""
    gateway, _ = await start(stack, "--sim-time-scale", "0.1")
    stubs = [await connect(stack, gateway.address) for _ in range(8)]
    ends: Counter[str] = Counter()

    async def one(number: int) -> None:
        try:
            events = [event async for event in stubs[number % 8].Generate(text_request(model="sim"))]
        except grpc.aio.AioRpcError as error:
            rpc_error = RpcError.from_call(error)
            ends[rpc_error.reason or rpc_error.code.name] += 1
        else:
            ends[events[-1].WhichOneof("event") or "nothing"] += 1

    await asyncio.gather(*(one(number) for number in range(BURST)))
    assert {"finished", "ADMISSION_QUEUE_FULL", "KV_EXHAUSTED", "WAIT_TOO_LONG"} >= set(ends)
    assert BURST == ends.total()
    assert ends["finished"]


async def test_a_gateway_with_100_streams_stays_small(stack: AsyncExitStack) -> None:
    """Under 120 MB: no model library, and nothing kept for a stream but the stream."""
    gateway, _ = await start(stack)
    stub = await connect(stack, gateway.address)
    calls = [stub.Generate(text_request(model="sim", max_output_tokens=3000)) for _ in range(100)]
    for _ in range(20):
        await asyncio.gather(*(call.read() for call in calls))
    assert gateway.resident_mib < 120 * 1e6 / 2**20
    for call in calls:
        call.cancel()


def promised(seed: int, begun: Response, count: int) -> tuple[list[int], str]:
    """The tokens of the sim engine behind the prompt of ``begun``, and their text."""
    begin = begun.started.prompt_token_count
    tokens = [LANGUAGE.token(seed, position) for position in range(begin, begin + count)]
    return tokens, "".join(map(LANGUAGE.text, tokens))


async def test_a_worker_killed_in_the_middle_is_replaced_in_its_streams(stack: AsyncExitStack) -> None:
    """The clients get the tokens that they would have got, each of them once.

    The worker kills itself, when one of its streams has 20 tokens: this process may come too late for the middle.
    """
    fault = ("--sim-fault-text", "doom", "--sim-fault", "kill", "--sim-fault-after-tokens", "20")
    doomed = await stack.enter_async_context(service_process("worker", *SIM, *fault))
    other = await stack.enter_async_context(service_process("worker", *SIM))
    gateway = await stack.enter_async_context(running_gateway(doomed.address, other.address))
    request = text_request("doom", model="sim", max_output_tokens=300, seed=7)
    answers = await asyncio.gather(*(gateway.generate(request) for _ in range(8)))
    for responses, error in answers:
        assert error is None
        assert promised(7, responses[0], 300) == (tokens_of(responses), text_of(responses))
        assert 300 == responses[-1].finished.usage.output_token_count
    assert {0, 1} == {responses[-1].finished.continuation_count for responses, _ in answers}


async def test_a_worker_stopped_in_the_middle_is_replaced_in_its_streams(stack: AsyncExitStack) -> None:
    """It is out of rotation within 3 seconds, and the clients get each token once, also when it goes on afterwards."""
    slow = (*SIM, "--sim-time-scale", "4")  # 3 seconds for 200 tokens
    workers = [await stack.enter_async_context(service_process("worker", *slow)) for _ in range(2)]
    gateway = await stack.enter_async_context(running_gateway(*(worker.address for worker in workers)))
    request = text_request(model="sim", max_output_tokens=200, seed=7)
    calls = [aiter(gateway.stub.Generate(request)) for _ in range(8)]
    seen = [[await anext(call)] for call in calls]
    workers[0].process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await gateway.until_workers(1)
            await asyncio.gather(*(take(call, responses) for call, responses in zip(calls, seen, strict=True)))
    finally:
        workers[0].process.send_signal(signal.SIGCONT)
    await gateway.until_workers(2)
    for responses in seen:
        assert promised(7, responses[0], 200) == (tokens_of(responses), text_of(responses))
    assert {0, 1} == {responses[-1].finished.continuation_count for responses in seen}


async def test_a_lone_worker_killed_in_the_middle_interrupts_its_streams(stack: AsyncExitStack) -> None:
    """The client keeps what it has and is told how much that is; the next request goes to the other worker."""
    doomed, other = [await stack.enter_async_context(service_process("worker", *SIM)) for _ in range(2)]
    gateway = await stack.enter_async_context(running_gateway(doomed.address, max_pause_s=0.2))
    stream = aiter(gateway.stub.Generate(text_request(model="sim", max_output_tokens=3000)))
    responses = [await anext(stream) for _ in range(3)]
    doomed.process.kill()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await take(stream, responses)
    error = RpcError.from_call(raised.value)
    tokens = sum(len(response.delta.token_ids) for response in responses)
    assert "STREAM_INTERRUPTED" == error.reason
    assert {"tokens_sent": str(tokens), "not_continued": "paused_too_long"} == error.metadata
    both = await stack.enter_async_context(running_gateway(doomed.address, other.address, ready=1))
    responses, after = await both.generate(text_request(model="sim"))
    assert after is None
    assert text_of(responses)


async def test_sigterm_finishes_what_runs_and_ends_with_0(stack: AsyncExitStack) -> None:
    """A rolling restart loses no stream."""
    gateway, _ = await start(stack)
    stub = await connect(stack, gateway.address)
    call = aiter(stub.Generate(text_request(model="sim", max_output_tokens=100)))
    await anext(call)
    gateway.process.send_signal(signal.SIGTERM)
    events = [event async for event in call]
    assert "finished" == events[-1].WhichOneof("event")
    async with asyncio.timeout(PATIENCE_S):
        assert 0 == await gateway.process.wait()


async def test_several_processes_serve_one_port(stack: AsyncExitStack) -> None:
    """Connections are spread over them by the kernel; SIGTERM to their parent ends them all, with 0."""
    worker = await stack.enter_async_context(service_process("worker", *SIM, "--sim-time-scale", "0.1"))
    arguments = ("--workers", worker.address, "--processes", "2", "--admin-listen", "")
    gateway = await stack.enter_async_context(service_process("gateway", *arguments))
    for _ in range(8):
        async with grpc.aio.insecure_channel(gateway.address, options=CHANNEL_OPTIONS) as channel:
            while "SERVING" != await check_health(channel, GATEWAY, timeout_s=PATIENCE_S):  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.02)
            stub: inference_service_pb2_grpc.InferenceServiceAsyncStub
            stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
            call = stub.Generate(text_request(model="sim"), wait_for_ready=True)
            assert text_of([response async for response in call])
    gateway.process.terminate()
    assert 0 == await asyncio.wait_for(gateway.process.wait(), PATIENCE_S)


async def test_an_address_that_is_taken_ends_the_process_with_1(stack: AsyncExitStack) -> None:
    """With the address in the message, and no traceback."""
    holder = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    port = holder.add_insecure_port("127.0.0.1:0")
    await holder.start()
    arguments = ("-m", "gateway", "--workers", "127.0.0.1:1", "--listen", f"127.0.0.1:{port}")
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)
    _, log = await process.communicate()
    await holder.stop(0)
    assert 1 == process.returncode
    assert f"127.0.0.1:{port}" in log.decode()
    assert "Traceback" not in log.decode()
