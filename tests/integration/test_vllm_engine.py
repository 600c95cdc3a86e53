from __future__ import annotations

import asyncio
import contextlib
import re
import time

import pytest
from prometheus_client import generate_latest

from tests.fakes.engine_outputs import engine_outputs
from tests.fakes.real_vllm import CONTEXT_LENGTH, KV_BLOCKS, RealVllm
from worker.engine import EngineError, FinishReason

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


async def test_the_model_knows_the_capital_of_france(vllm: RealVllm) -> None:
    """The default model is whole: template, tokenizer and weights."""
    answer = await vllm.answer(vllm.job(vllm.chat("What is the capital of France?")))
    assert "The capital of France is Paris." == answer.text
    assert FinishReason.STOP == answer.finish.reason


async def test_outputs_are_deltas_and_their_text_is_that_of_their_tokens(vllm: RealVllm) -> None:
    """No output repeats what came before, and the end token is not part of the output."""
    answer = await vllm.answer(vllm.job(vllm.chat("Name three colours."), max_output_tokens=40))
    assert answer.text == vllm.tokenizer.decode(answer.token_ids)
    assert 2 not in answer.token_ids


async def test_a_seed_repeats_the_output_and_another_one_does_not(vllm: RealVllm) -> None:
    """Also -1, which means no seed to vLLM, and seeds at the ends of int64."""
    prompt = vllm.chat("Tell me a story.")
    for seed in (7, -1, -(2**63), 2**63 - 1):
        first, second = [
            await vllm.answer(vllm.job(prompt, temperature=1.0, seed=seed, max_output_tokens=24)) for _ in range(2)
        ]
        assert first.token_ids == second.token_ids
    other = await vllm.answer(vllm.job(prompt, temperature=1.0, seed=8, max_output_tokens=24))
    assert first.token_ids != other.token_ids


async def test_seeds_with_prompts_of_the_whole_context_do_not_end_the_engine(vllm: RealVllm) -> None:
    """A prefill in several steps, or one repeated after preemption, would end vLLM 0.32 on a CPU (see vllm_settings).

    Twenty prompts of 250 tokens take two of the 48 blocks each, and a third one when they grow.
    """
    before = vllm.engine.load().preemptions
    jobs = [
        vllm.job(
            [100 + (index * 31 + position * 7) % 40_000 for position in range(length)],
            temperature=1.0,
            seed=index,
            max_output_tokens=20,
            min_output_tokens=20,
        )
        for index, length in enumerate([250] * 20 + [1_900])
    ]
    answers = await asyncio.gather(*map(vllm.answer, jobs))
    assert {FinishReason.LENGTH} == {answer.finish.reason for answer in answers}
    assert vllm.engine.load().preemptions > before
    assert await vllm.is_well()


async def test_a_stop_string_ends_the_text_before_it(vllm: RealVllm) -> None:
    """And is named."""
    answer = await vllm.answer(vllm.job(vllm.chat("What is the capital of France?"), stop_strings=("is Par", "zz")))
    assert ("The capital of France ", "is Par") == (answer.text, answer.finish.stop_string)


async def test_a_stop_token_ends_the_output_before_it(vllm: RealVllm) -> None:
    """And is named."""
    paris = vllm.tokenizer.encode(" Paris", add_special_tokens=False).ids[0]
    answer = await vllm.answer(vllm.job(vllm.chat("What is the capital of France?"), stop_token_ids=(paris,)))
    assert ("The capital of France is", paris) == (answer.text, answer.finish.stop_token_id)
    assert paris not in answer.token_ids


async def test_an_output_can_be_made_to_end_at_a_length_that_its_limit_does_not_tell(vllm: RealVllm) -> None:
    """A stop token that is forbidden up to there and certain from there on: what bench.overload relies on."""
    for length in (1, 17):
        job = vllm.job(
            vllm.chat("Count."),
            max_output_tokens=100,
            min_output_tokens=length,
            temperature=1.0,
            stop_token_ids=(5_000,),
            logit_bias={5_000: 100.0},
        )
        answer = await vllm.answer(job)
        assert (length, 5_000) == (len(answer.token_ids), answer.finish.stop_token_id)


async def test_the_first_output_tells_what_the_prefix_cache_held(vllm: RealVllm) -> None:
    """The ledger counts blocks in common by it."""
    prompt = [200 + position * 13 % 40_000 for position in range(300)]
    cold, warm = [await vllm.answer(vllm.job(prompt, max_output_tokens=2)) for _ in range(2)]
    assert (0, 256) == (cold.outputs[0].cached_prompt_tokens, warm.outputs[0].cached_prompt_tokens)


@pytest.mark.parametrize("count", [0, 20])
async def test_logprobs_stand_beside_each_token(vllm: RealVllm, count: int) -> None:
    """As many alternatives as were asked for, likeliest first; a prompt's first token has none."""
    prompt = vllm.chat("What is the capital of France?")
    answer = await vllm.answer(vllm.job(prompt, logprobs=count, prompt_logprobs=count))
    logprobs = [logprob for output in answer.outputs for logprob in output.logprobs]
    prompt_logprobs = [logprob for output in answer.outputs for logprob in output.prompt_logprobs]
    assert answer.token_ids == [logprob.token_id for logprob in logprobs]
    assert prompt[1:] == [logprob.token_id for logprob in prompt_logprobs]
    assert {count} == {len(logprob.top) for logprob in logprobs + prompt_logprobs}
    if count:
        assert answer.token_ids == [logprob.top[0][0] for logprob in logprobs]  # greedy


async def test_a_prefix_that_was_computed_before_is_found_again(vllm: RealVllm) -> None:
    """Whole blocks of it."""
    prompt = [200 + position for position in range(300)]
    await vllm.answer(vllm.job(prompt))
    answer = await vllm.answer(vllm.job(prompt))
    assert 256 == answer.finish.cached_prompt_tokens


async def test_closing_a_stream_frees_its_blocks(vllm: RealVllm) -> None:
    """As soon as the engine has ended its current step."""
    job = vllm.job(vllm.chat("Count."), max_output_tokens=1_500, min_output_tokens=1_500)
    outputs = engine_outputs(vllm.engine, job)
    await anext(outputs)
    assert vllm.engine.load().free_blocks < vllm.facts.total_blocks
    await outputs.aclose()
    await vllm.until_idle()


async def test_cancelling_the_reader_frees_its_blocks(vllm: RealVllm) -> None:
    """As a cancelled call does."""
    job = vllm.job(vllm.chat("Count."), max_output_tokens=1_500, min_output_tokens=1_500)
    reading = asyncio.create_task(vllm.answer(job))
    while vllm.engine.load().free_blocks == vllm.facts.total_blocks:  # noqa: ASYNC110 - as RealVllm.until_idle
        await asyncio.sleep(0.001)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    await vllm.until_idle()


async def test_outputs_merge_while_their_reader_lags(vllm: RealVllm) -> None:
    """Nothing queues up, and nothing is lost."""
    job = vllm.job(vllm.chat("Count."), max_output_tokens=20, min_output_tokens=20)
    outputs = engine_outputs(vllm.engine, job)
    tokens = len((await anext(outputs)).token_ids)
    await vllm.until_idle()
    rest = [output async for output in outputs]
    assert (20, 1) == (tokens + sum(len(output.token_ids) for output in rest), len(rest))


async def test_the_end_of_the_context_ends_the_output(vllm: RealVllm) -> None:
    """Whatever maximum the request names."""
    answer = await vllm.answer(vllm.job([5] * (CONTEXT_LENGTH - 3), max_output_tokens=10_000, min_output_tokens=10_000))
    assert (FinishReason.LENGTH, 3) == (answer.finish.reason, len(answer.token_ids))


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        pytest.param([], {}, id="empty prompt"),
        pytest.param([5] * CONTEXT_LENGTH, {}, id="prompt of the whole context"),
        pytest.param([10**9], {}, id="token that does not exist"),
        pytest.param([5], {"top_p": 0.0}, id="top_p"),
        pytest.param([5], {"temperature": float("nan")}, id="NaN"),
        pytest.param([5], {"min_output_tokens": 17}, id="least above most"),
        pytest.param([5], {"logit_bias": {49_152: 1.0}}, id="bias of no token"),
        pytest.param([5], {"stop_token_ids": (-1,)}, id="stop at no token"),
        pytest.param([5], {"logprobs": 21}, id="too many logprobs"),
    ],
)
async def test_what_vllm_refuses_is_the_error_of_that_request_alone(
    vllm: RealVllm, prompt: list[int], options: dict[str, object]
) -> None:
    """The worker's own checks come before; these are vLLM's."""
    with pytest.raises(EngineError):
        await vllm.answer(vllm.job(prompt, **options))  # type: ignore[arg-type]
    assert await vllm.is_well()


async def test_load_counts_what_was_computed(vllm: RealVllm) -> None:
    """Steps, prompt tokens and output tokens grow by what a request takes."""
    await vllm.until_idle()
    before = vllm.engine.load()
    await vllm.answer(vllm.job([7 + position for position in range(100)], max_output_tokens=5, min_output_tokens=5))
    after = vllm.engine.load()
    assert 100 == after.prompt_tokens_computed - before.prompt_tokens_computed
    assert 5 == after.output_tokens_generated - before.output_tokens_generated
    assert after.step_count >= before.step_count + 5
    assert before.last_step_at < after.last_step_at <= time.monotonic()


async def test_a_prompt_that_ends_inside_a_character_is_not_repeated(vllm: RealVllm) -> None:
    """The engine's text is that of the output, with the character that it completes."""
    ids = vllm.tokenizer.encode("The capital of Japan is 東京", add_special_tokens=False).ids
    cut = next(
        at for at in range(len(ids) - 1, 0, -1) if vllm.tokenizer.decode(ids[:at]).endswith("\N{REPLACEMENT CHARACTER}")
    )
    completed = dict.fromkeys(ids[cut : cut + 1], 100.0)
    job = vllm.job(ids[:cut], max_output_tokens=1, logit_bias=completed, stop_strings=("capital",))
    answer = await vllm.answer(job)
    assert vllm.tokenizer.decode(ids[: cut + 1])[-1] == answer.text


async def test_metrics_of_vllm_stand_beside_ours_under_their_own_names(vllm: RealVllm) -> None:
    """Among them those by which an endpoint picker of the Gateway API inference extension knows a model server."""
    await vllm.is_well()
    page = generate_latest(vllm.worker.worker.metrics.registry).decode()
    values = {
        name: float(value)
        for name, _, value in re.findall(r"^(vllm:\w+)(\{.*\})? (\S+)$", page, re.MULTILINE)
        if not name.endswith(("_bucket", "_created"))
    }
    for name in ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"):
        assert 0 == values[name]
    assert 0 < values["vllm:generation_tokens_total"]
    assert f'num_gpu_blocks="{KV_BLOCKS}"' in page
    assert 'tidegate_kv_blocks{tidegate_state="total"}' in page
