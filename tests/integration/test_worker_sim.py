from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_worker import RunningWorker, running_worker
from tidegate.client.health import WORKER, check_health
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.rpc.metadata import FINISHED_BIN
from tidegate.rpc.status import RpcError
from tidegate.worker.v1 import worker_service_pb2
from worker.config import WorkerSettings
from worker.sim_language import SimLanguage

pytestmark = pytest.mark.usefixtures("data_plane")


@pytest.fixture
async def sim() -> AsyncIterator[RunningWorker]:
    """A sim a hundred times as fast as the real engine."""
    async with running_worker() as worker:
        yield worker


@pytest.fixture
async def slow_sim() -> AsyncIterator[RunningWorker]:
    """A sim whose long generations outlast a test: half as fast as the real engine, and with a small KV cache."""
    settings = WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=1, kv_block_count=64, sim_time_scale=2)
    async with running_worker(settings) as worker:
        yield worker


async def test_the_process_is_told_once_that_the_model_is_loaded() -> None:
    """By the time the worker is ready; what the process then does is in no stream's way."""
    told: list[str] = []
    async with running_worker(on_loaded=lambda: told.append("loaded")):
        assert ["loaded"] == told


async def _tokens(call: AsyncIterable[inference_service_pb2.GenerateResponse]) -> list[int]:
    return [token_id async for response in call for token_id in response.delta.token_ids]


async def _error(call: AsyncIterable[inference_service_pb2.GenerateResponse]) -> RpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        async for _ in call:
            pass
    return RpcError.from_call(failure.value)


async def test_generation_is_started_then_deltas_then_finished(sim: RunningWorker) -> None:
    """A stream has the shape that the contract promises, and its tokens are f(seed, position)."""
    tokenizer = await _file(sim, worker_service_pb2.TOKENIZER_FILE_TOKENIZER_JSON)
    language = SimLanguage(tokenizer, seed=0, mean_output_tokens=None)

    responses = [response async for response in sim.stub.Generate(sim.request((3, 4, 5), max_output_tokens=6))]

    kinds = [response.WhichOneof("event") for response in responses]
    assert ["started", *["delta"] * (len(kinds) - 2), "finished"] == kinds
    expected = [language.token(None, position) for position in range(3, 9)]
    assert expected == [token_id for response in responses for token_id in response.delta.token_ids]
    text = "".join(piece for response in responses for piece in response.delta.text)
    assert "".join(map(language.text, expected)) == text


async def test_finished_tells_usage_and_is_repeated_in_trailers(sim: RunningWorker) -> None:
    """Usage counts tokens and blocks; a relay reads the same from the trailing metadata."""
    call = sim.stub.Generate(sim.request(range(3, 40), max_output_tokens=12))
    finished = [response async for response in call][-1].finished

    trailers = await call.trailing_metadata()
    assert trailers is not None
    assert finished.SerializeToString() == trailers[FINISHED_BIN]
    assert generation_pb2.FINISH_REASON_LENGTH == finished.reason
    assert (37, 12, 3) == (
        finished.usage.prompt_token_count,
        finished.usage.output_token_count,
        finished.usage.kv_block_count,
    )


async def test_clamped_budget_is_told_apart_from_length(sim: RunningWorker) -> None:
    """A request whose limit was lowered for its deadline ends with BUDGET."""
    responses = [response async for response in sim.stub.Generate(sim.request(is_budget_clamped=True))]

    assert generation_pb2.FINISH_REASON_BUDGET == responses[-1].finished.reason


async def test_continued_prompt_goes_on_where_the_first_stopped(sim: RunningWorker) -> None:
    """Prompt plus delivered tokens yields the rest of the same output."""
    prompt = list(range(3, 20))
    whole = await _tokens(sim.stub.Generate(sim.request(prompt, max_output_tokens=20)))

    rest = await _tokens(sim.stub.Generate(sim.request([*prompt, *whole[:7]], max_output_tokens=13)))

    assert whole == whole[:7] + rest


async def test_second_request_finds_its_prefix_cached(sim: RunningWorker) -> None:
    """Full blocks of an earlier prompt are not computed again."""
    for _ in range(2):
        call = sim.stub.Generate(sim.request(range(3, 103), max_output_tokens=1))
        responses = [response async for response in call]

    assert 96 == responses[-1].finished.usage.cached_prompt_token_count


async def test_stop_string_ends_the_text_before_it(sim: RunningWorker) -> None:
    """The text ends before the stop string, which Finished names."""
    responses = [response async for response in sim.stub.Generate(sim.request(max_output_tokens=30))]
    text = "".join(piece for response in responses for piece in response.delta.text)
    stop = text[40:46]

    request = sim.request(max_output_tokens=30)
    request.sampling.stop_strings.append(stop)
    responses = [response async for response in sim.stub.Generate(request)]

    assert text[: text.index(stop)] == "".join(piece for response in responses for piece in response.delta.text)
    assert stop == responses[-1].finished.stop_string


async def test_logprobs_come_with_their_tokens(sim: RunningWorker) -> None:
    """One log probability per output token with as many alternatives as asked for, and one per prompt token but one."""
    request = sim.request(max_output_tokens=5)
    request.output.logprobs, request.output.prompt_logprobs = 2, 0

    deltas = [response.delta async for response in sim.stub.Generate(request)]

    tokens = [token_id for delta in deltas for token_id in delta.token_ids]
    assert tokens == [logprob.token_id for delta in deltas for logprob in delta.logprobs]
    assert {2} == {len(logprob.top) for delta in deltas for logprob in delta.logprobs}
    assert [4, 5] == [logprob.token_id for delta in deltas for logprob in delta.prompt_logprobs]


async def test_cancel_frees_blocks_and_reservation(slow_sim: RunningWorker) -> None:
    """A cancelled call leaves nothing behind, at whatever moment it is cancelled."""
    for trial in range(20):
        call = slow_sim.stub.Generate(slow_sim.request(range(3, 40), max_output_tokens=400))
        if trial % 2:
            await call.read()
        call.cancel()
    await _until(slow_sim, lambda load: load.reserved_block_count == 0)

    load = await slow_sim.load()
    assert (64, 0, 0) == (load.free_block_count, load.running_request_count, load.waiting_request_count)


async def test_deadline_ends_the_stream(slow_sim: RunningWorker) -> None:
    """A deadline that passes in mid-stream ends the call and frees its blocks."""
    error = await _error(slow_sim.stub.Generate(slow_sim.request(max_output_tokens=900), timeout=0.2))

    assert grpc.StatusCode.DEADLINE_EXCEEDED == error.code
    await _until(slow_sim, lambda load: load.reserved_block_count == 0)


async def test_full_ledger_refuses_with_its_numbers(slow_sim: RunningWorker) -> None:
    """What does not fit is refused at once, with the blocks needed and free, and a time to retry."""
    first = slow_sim.stub.Generate(slow_sim.request(max_output_tokens=1000))
    await first.read()

    error = await _error(slow_sim.stub.Generate(slow_sim.request(max_output_tokens=100)))

    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, "AT_CAPACITY") == (error.code, error.reason)
    assert {
        "limit": "blocks",
        "needed_blocks": "7",
        "unreserved_blocks": "1",
        "largest_tokens": "16",
        "requests": "1",
    }.items() <= error.metadata.items()
    assert error.retry_after_s is not None
    assert 0.05 <= error.retry_after_s <= 30
    first.cancel()


async def test_given_prefix_is_cached_at_its_first_request(tmp_path: Path) -> None:
    """A worker that was given a file of prefixes has computed them when it says that it is ready."""
    path = tmp_path / "prefixes.jsonl"
    path.write_text(json.dumps({"token_ids": list(range(3, 203))}), encoding="utf-8")
    async with running_worker(WorkerSettings(engine="sim", listen="127.0.0.1:0", prefix_file=path)) as running:
        responses = [
            response async for response in running.stub.Generate(running.request(range(3, 300), max_output_tokens=1))
        ]

    assert 192 == responses[-1].finished.usage.cached_prompt_token_count


async def test_invalid_job_names_every_field(sim: RunningWorker) -> None:
    """All violations come at once."""
    request = sim.request((3, 10_000), max_output_tokens=5000, constraint={"regex": "a+"})
    request.sampling.temperature = float("nan")

    error = await _error(sim.stub.Generate(request))

    assert (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_JOB") == (error.code, error.reason)
    fields = {violation.field for violation in error.violations}
    assert {"prompt_token_ids", "sampling.temperature", "constraint"} == fields


async def test_other_checkpoint_is_refused(sim: RunningWorker) -> None:
    """A prompt tokenised for another checkpoint would be nonsense to this one."""
    error = await _error(sim.stub.Generate(sim.request(checkpoint_sha256="0" * 64)))

    assert (grpc.StatusCode.FAILED_PRECONDITION, "CHECKPOINT_MISMATCH") == (error.code, error.reason)


async def test_tokenizer_files_match_their_digests(sim: RunningWorker) -> None:
    """GetTokenizer streams what GetModel has digests of."""
    digests = sim.model.model.digests
    tokenizer = await _file(sim, worker_service_pb2.TOKENIZER_FILE_TOKENIZER_JSON)
    template = await _file(sim, worker_service_pb2.TOKENIZER_FILE_CHAT_TEMPLATE)

    assert digests.tokenizer_sha256 == hashlib.sha256(tokenizer).hexdigest()
    assert digests.chat_template_sha256 == hashlib.sha256(template).hexdigest()
    assert 8 <= len(sim.model.canaries)


async def test_load_is_pushed_when_it_changes(slow_sim: RunningWorker) -> None:
    """A watcher sees a request come, with its reservation, and go."""
    watch = slow_sim.stub.WatchLoad(worker_service_pb2.WatchLoadRequest())
    pushed = (response.load_report async for response in watch)
    reports = [await anext(pushed)]
    call = slow_sim.stub.Generate(slow_sim.request(range(3, 40), max_output_tokens=100))
    while not reports[-1].reserved_block_count:
        reports.append(await anext(pushed))
    during = reports[-1]
    call.cancel()
    while reports[-1].reserved_block_count:
        reports.append(await anext(pushed))
    watch.cancel()

    assert 9 == during.reserved_block_count
    numbers = [report.sample_number for report in reports]
    assert sorted(set(numbers)) == numbers


async def test_drain_lets_running_requests_finish_and_refuses_new_ones() -> None:
    """Drain ends the process with code 0 once the running stream is complete; new calls are told why."""
    settings = WorkerSettings(engine="sim", listen="127.0.0.1:0", drain_grace_s=20)
    async with running_worker(settings) as worker:
        call = aiter(worker.stub.Generate(worker.request(max_output_tokens=100)))
        watch = worker.stub.WatchLoad(worker_service_pb2.WatchLoadRequest())
        await anext(call)
        drained = await worker.stub.Drain(worker_service_pb2.DrainRequest())
        error = await _error(worker.stub.Generate(worker.request()))
        tokens = await _tokens(call)
        reports = [response.load_report async for response in watch]

        assert 1 == drained.running_request_count
        assert (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING") == (error.code, error.reason)
        assert 100 == len(tokens)
        assert reports[-1].is_draining
        assert 0 == await worker.life


async def test_drain_ends_requests_that_outlast_its_grace(slow_sim: RunningWorker) -> None:
    """When the grace is over the rest is cut off with a reason, and the process ends."""
    call = aiter(slow_sim.stub.Generate(slow_sim.request(max_output_tokens=900)))
    await anext(call)
    slow_sim.worker.stop()

    error = await _error(call)

    assert (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING") == (error.code, error.reason)
    assert 0 == await slow_sim.life


async def test_health_follows_readiness(sim: RunningWorker) -> None:
    """The service's own name answers SERVING."""
    assert "SERVING" == await check_health(sim.channel, WORKER, timeout_s=PATIENCE_S)


async def _file(worker: RunningWorker, file: worker_service_pb2.TokenizerFile.ValueType) -> bytes:
    pieces = worker.stub.GetTokenizer(worker_service_pb2.GetTokenizerRequest())
    return b"".join([piece.data async for piece in pieces if piece.file == file])


async def _until(worker: RunningWorker, condition: Callable[[worker_service_pb2.LoadReport], bool]) -> None:
    """Watch the load until ``condition`` holds; a test that waits in vain is ended by the timeout."""
    watch = worker.stub.WatchLoad(worker_service_pb2.WatchLoadRequest())
    async with asyncio.timeout(PATIENCE_S):
        async for response in watch:
            if condition(response.load_report):
                break
    watch.cancel()
