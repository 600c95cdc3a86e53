"""Between the worker's values and vLLM's; tests/integration/test_vllm_engine.py has the engine itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from worker.engine import (
    Constraint,
    ConstraintKind,
    EngineError,
    EngineFacts,
    EngineFinish,
    FinishReason,
    GenerationJob,
    Sampling,
    TokenLogprob,
)
from worker.vllm_output import engine_finish, engine_output
from worker.vllm_request import refuse_what_never_fits, sampling_arguments
from worker.vllm_settings import VllmSettings, engine_arguments

FACTS = EngineFacts(
    name="vllm",
    block_size=16,
    total_blocks=100,
    kv_pool_tokens=1_600,
    context_length=4_096,
    vocabulary_size=150_000,
    max_batched_tokens=2_048,
    max_running_requests=8,
    supports_seed=True,
    constraint_kinds=(),
)


def _job(prompt_tokens: int = 3, *, prompt_logprobs: int | None = None, **sampling: Any) -> GenerationJob:
    return GenerationJob(
        job_id="job",
        prompt_token_ids=[5] * prompt_tokens,
        sampling=Sampling(**{"max_output_tokens": 10} | sampling),
        prompt_logprobs=prompt_logprobs,
    )


_TIMES = SimpleNamespace(queued_ts=1.0, scheduled_ts=1.5, first_token_ts=3.5, last_token_ts=10.5)


def _finish(reason: str, stopped_by: int | str | None = None) -> EngineFinish:
    return engine_finish(reason, stopped_by, _TIMES, cached_prompt_tokens=0)


def test_a_cpu_prefills_every_prompt_in_one_step() -> None:
    """Otherwise a seed ends the engine; on a GPU the setting stands."""
    settings = VllmSettings(model_dir=Path("model"), max_batched_tokens=512)
    on_cpu, on_gpu = (engine_arguments(settings, is_cpu=is_cpu) for is_cpu in (True, False))
    assert (False, None) == (on_cpu["enable_chunked_prefill"], on_cpu["max_num_batched_tokens"])
    assert 512 == on_gpu["max_num_batched_tokens"]
    assert "enable_chunked_prefill" not in on_gpu


@pytest.mark.parametrize(
    "wrong",
    [{"gpu_memory_utilization": 0.0}, {"gpu_memory_utilization": 1.5}, {"kv_cache_bytes": 0}, {"context_length": -1}],
)
def test_settings_outside_their_bounds_are_refused(wrong: dict[str, Any]) -> None:
    """Before anything is loaded."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VllmSettings(model_dir=Path("model"), **wrong)


@pytest.mark.parametrize(
    ("seed", "expected"), [(None, None), (0, 0), (7, 7), (-1, 2**63 - 1), (-(2**63), 0), (2**63 - 1, 2**63 - 1)]
)
def test_every_seed_is_one_to_vllm(seed: int | None, expected: int | None) -> None:
    """To which -1 means none."""
    assert expected == sampling_arguments(_job(seed=seed))["seed"]


def test_a_greedy_choice_has_no_seed() -> None:
    """It is repeatable without."""
    assert sampling_arguments(_job(seed=7, temperature=0.0))["seed"] is None


def test_a_temperature_near_zero_is_not_zero() -> None:
    """Neither greedy, nor lower than vLLM computes with."""
    assert 0.01 == sampling_arguments(_job(temperature=1e-30))["temperature"]


def test_a_constraint_decides_when_the_output_may_end() -> None:
    """A least number of tokens could forbid the only token that is left."""
    job = GenerationJob(
        job_id="job",
        prompt_token_ids=[5],
        sampling=Sampling(max_output_tokens=10, min_output_tokens=10),
        constraint=Constraint(kind=ConstraintKind.JSON_OBJECT),
    )
    assert 0 == sampling_arguments(job)["min_tokens"]


def test_what_the_pool_cannot_hold_is_refused() -> None:
    """Prompt and output together, as far as the context reaches."""
    refuse_what_never_fits(_job(1_590), FACTS, is_cpu=False)
    with pytest.raises(EngineError, match="1601 tokens do not fit"):
        refuse_what_never_fits(_job(1_591), FACTS, is_cpu=False)


def test_prompt_logprobs_that_would_fill_the_memory_are_refused_on_a_cpu() -> None:
    """Where vLLM computes them for the whole prompt at once."""
    job = _job(3_000, prompt_logprobs=0)
    facts = EngineFacts(**{name: getattr(FACTS, name) for name in FACTS.__slots__} | {"kv_pool_tokens": 10_000})
    refuse_what_never_fits(job, facts, is_cpu=False)
    with pytest.raises(EngineError, match="prompt_logprobs of 3000 tokens"):
        refuse_what_never_fits(job, facts, is_cpu=True)


@pytest.mark.parametrize(
    ("reason", "stopped_by", "expected"),
    [
        ("stop", None, (8,)),  # the end token
        ("stop", 9, (8,)),  # a stop token
        ("stop", "text", (8, 9)),  # a stop string; the last token may hold text before it
        ("length", None, (8, 9)),
        ("repetition", None, (8, 9)),
    ],
)
def test_the_token_that_ends_an_output_is_not_part_of_it(
    reason: str, stopped_by: int | str | None, expected: tuple[int, ...]
) -> None:
    """But every other is."""
    output = engine_output(
        _job(), token_ids=(8, 9), text="text", cached_prompt_tokens=0, finish=_finish(reason, stopped_by)
    )
    assert expected == output.token_ids
    assert output.finish is not None
    assert FinishReason(reason) == output.finish.reason


def test_durations_come_from_the_engines_clock() -> None:
    """Of queue, prefill and decode, in seconds."""
    finish = _finish("length")
    assert (0.5, 2.0, 7.0) == (finish.queue_s, finish.prefill_s, finish.decode_s)


def test_alternatives_are_sorted_and_counted() -> None:
    """To as many as were asked for vLLM adds the position's own token."""

    def logprob(rank: int) -> SimpleNamespace:
        return SimpleNamespace(rank=rank, logprob=-float(rank), decoded_token=f"t{rank}")

    job = GenerationJob(job_id="job", prompt_token_ids=[5], sampling=Sampling(max_output_tokens=1), logprobs=2)
    positions = [{30: logprob(3), 20: logprob(2), 10: logprob(1)}]
    (token,) = engine_output(job, token_ids=(30,), text="", cached_prompt_tokens=0, logprobs=positions).logprobs
    assert TokenLogprob(token_id=30, token="t3", logprob=-3.0, top=((10, "t1", -1.0), (20, "t2", -2.0))) == token
