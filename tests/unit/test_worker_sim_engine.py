from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import worker
from tests.fakes.engine_outputs import engine_outputs
from worker.engine import (
    Constraint,
    ConstraintKind,
    Continued,
    EngineDeadError,
    EngineError,
    EngineFinish,
    FinishReason,
    GenerationJob,
    Sampling,
)
from worker.sim_engine import SimEngine
from worker.sim_language import SimLanguage
from worker.sim_profile import load_profile

_TOKENIZER = (Path(worker.__file__).parent / "sim_model" / "tokenizer.json").read_bytes()
_LANGUAGE = SimLanguage(_TOKENIZER, seed=0, mean_output_tokens=30)


@pytest.fixture
async def engine() -> AsyncIterator[SimEngine]:
    """A running engine, a thousand times as fast as the real one."""
    sim = SimEngine(load_profile("h200-llama3-8b-awq"), _LANGUAGE, time_scale=0.001)
    await sim.start()
    yield sim
    await sim.stop()


def _job(sampling: Sampling, *, constraint: Constraint | None = None) -> GenerationJob:
    return GenerationJob(job_id="job-1", prompt_token_ids=[3, 4], sampling=sampling, constraint=constraint)


async def _run(engine: SimEngine, sampling: Sampling) -> tuple[list[int], str, EngineFinish]:
    tokens: list[int] = []
    text = ""
    async for output in engine_outputs(engine, _job(sampling)):
        tokens += output.token_ids
        text += output.text
        if output.finish is not None:
            return tokens, text, output.finish
    raise AssertionError("the stream ended without a finish")


async def test_text_ends_where_the_language_ends_it(engine: SimEngine) -> None:
    """The end that f(seed, position) sets is a STOP, except before min_output_tokens."""
    end = next(position for position in range(2, 1_000) if _LANGUAGE.ends(5, position))
    later = next(position for position in range(end + 1, 1_000) if _LANGUAGE.ends(5, position))

    tokens, _, finish = await _run(engine, Sampling(max_output_tokens=900, seed=5))
    more, _, _ = await _run(engine, Sampling(max_output_tokens=900, min_output_tokens=end - 1, seed=5))

    assert (end - 2, FinishReason.STOP) == (len(tokens), finish.reason)
    assert later - 2 == len(more)


async def test_stop_token_is_not_in_the_output(engine: SimEngine) -> None:
    """A stop token ends the output before itself, and is named."""
    tokens, text, _ = await _run(engine, Sampling(max_output_tokens=12, min_output_tokens=12))
    stop = tokens[5]

    shorter, shorter_text, finish = await _run(engine, Sampling(max_output_tokens=12, stop_token_ids=(stop,)))

    assert tokens[: tokens.index(stop)] == shorter
    assert text.startswith(shorter_text)
    assert stop == finish.stop_token_id


async def test_slow_consumer_gets_merged_outputs(engine: SimEngine) -> None:
    """What is not taken in time comes in one piece."""
    complete = asyncio.Event()
    engine.on_step(lambda: complete.set() if not engine.load().running_requests else None)
    outputs = engine_outputs(engine, _job(Sampling(max_output_tokens=40, min_output_tokens=40)))
    first = await anext(outputs)
    await complete.wait()
    rest = await anext(outputs)

    assert 40 == len(first.token_ids) + len(rest.token_ids)
    assert rest.finish is not None


async def test_closing_a_stream_frees_its_blocks_at_once(engine: SimEngine) -> None:
    """Nothing is awaited between the end of the consumer and the return of the blocks."""
    outputs = engine_outputs(engine, _job(Sampling(max_output_tokens=900, min_output_tokens=900)))
    await anext(outputs)
    free = engine.load().free_blocks
    await outputs.aclose()

    assert engine.load().free_blocks > free
    assert 0 == engine.load().running_requests


async def test_stop_fails_what_runs(engine: SimEngine) -> None:
    """A stopped engine leaves no stream hanging and takes no other."""
    outputs = engine_outputs(engine, _job(Sampling(max_output_tokens=900, min_output_tokens=900)))
    await anext(outputs)
    await engine.stop()

    with pytest.raises(EngineDeadError):
        await anext(outputs)
    with pytest.raises(EngineDeadError):
        await anext(engine_outputs(engine, _job(Sampling(max_output_tokens=1))))


async def test_job_that_never_fits_is_refused(engine: SimEngine) -> None:
    """A request larger than the context would be preempted for ever in a small pool."""
    with pytest.raises(EngineError, match="do not fit"):
        await anext(engine_outputs(engine, _job(Sampling(max_output_tokens=5_000))))


async def test_constraint_is_refused(engine: SimEngine) -> None:
    """Made-up tokens obey nothing."""
    constraint = Constraint(kind=ConstraintKind.REGEX, text="a")

    with pytest.raises(EngineError, match="constraint"):
        await anext(engine_outputs(engine, _job(Sampling(max_output_tokens=1), constraint=constraint)))


async def test_greatest_logit_bias_makes_its_token_certain(engine: SimEngine) -> None:
    """And as a stop token, forbidden up to min_output_tokens, it ends the output exactly there."""
    word = _LANGUAGE.token_ids[0]
    words, _, _ = await _run(engine, Sampling(max_output_tokens=3, min_output_tokens=3, logit_bias={word: 100.0}))
    sampling = Sampling(
        max_output_tokens=90, min_output_tokens=40, stop_token_ids=(word,), logit_bias={word: 100.0}, seed=5
    )
    tokens, _, finish = await _run(engine, sampling)

    assert [word] * 3 == words
    assert (40, word) == (len(tokens), finish.stop_token_id)


@pytest.mark.parametrize("cut", [1, 7, 19, 20])
async def test_a_continued_output_is_the_rest_of_the_whole(engine: SimEngine, cut: int) -> None:
    """The same tokens, text and end as without a break, and those that the client has are not repeated."""
    sampling = Sampling(max_output_tokens=20, min_output_tokens=20, seed=3)
    tokens, text, whole_finish = await _run(engine, sampling)
    continued = Continued(token_ids=tuple(tokens[:cut]), text_bytes=5)
    job = GenerationJob(job_id="job-2", prompt_token_ids=[3, 4], sampling=sampling, continued=continued)

    outputs = [output async for output in engine_outputs(engine, job)]

    finish = outputs[-1].finish
    assert tokens[cut:] == [token for output in outputs for token in output.token_ids]
    assert text == outputs[0].continued_text + "".join(output.text for output in outputs)
    assert finish is not None
    assert whole_finish.reason == finish.reason
