"""worker/vllm_submission.py against what it leaves out: the same jobs through vLLM's own input processor."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.real_vllm import RealVllm
from worker.engine import Constraint, ConstraintKind, Continued, GenerationJob, Sampling

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

_SHARES = st.floats(0.0, 1.0)
_SAMPLINGS = st.builds(
    Sampling,
    max_output_tokens=st.integers(4, 64),
    min_output_tokens=st.integers(0, 4),
    temperature=st.floats(0.0, 2.0),
    top_p=st.floats(0.01, 1.0),
    top_k=st.integers(0, 1_024),
    min_p=_SHARES,
    presence_penalty=st.floats(-2.0, 2.0),
    frequency_penalty=st.floats(-2.0, 2.0),
    repetition_penalty=st.floats(0.01, 2.0),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop_token_ids=st.lists(st.integers(0, 100), max_size=3).map(tuple),
)
_JOBS = st.builds(
    GenerationJob,
    job_id=st.just("job"),
    prompt_token_ids=st.lists(st.integers(0, 1_000), min_size=1, max_size=40),
    sampling=_SAMPLINGS,
    continued=st.none() | st.builds(Continued, token_ids=st.just((5, 6)), text_bytes=st.just(3)),
)


async def test_a_plain_job_becomes_what_vllm_would_make_of_it(vllm: RealVllm) -> None:
    """Every field of what its process is sent, but the ids, one of which vLLM draws, and the time."""
    from worker.vllm_submission import sampling_params

    started: Any = vllm.engine._started  # type: ignore[attr-defined]
    engine = started.engine
    tasks = await engine.get_supported_tasks()

    @given(job=_JOBS, stop_strings=st.lists(st.sampled_from(["end", "\n", "🐈"]), max_size=2))
    @settings(max_examples=200, deadline=None)
    def compare(job: GenerationJob, stop_strings: list[str]) -> None:
        def params() -> Any:
            return sampling_params(job, stop_strings=stop_strings, seeds_by_position=True)

        ours = started.submission.plain_request("job", [*job.computed_token_ids], params())
        theirs = engine.input_processor.process_inputs("job", _prompt(job), params(), supported_tasks=tasks)
        engine.input_processor.assign_request_id(theirs)
        for request in (ours, theirs):
            request.arrival_time, request.request_id = 0.0, ""
        assert msgspec.to_builtins(_encodable(theirs)) == msgspec.to_builtins(_encodable(ours))

    compare()


def _prompt(job: GenerationJob) -> Any:
    from vllm.inputs import tokens_input

    return tokens_input([*job.computed_token_ids])


def _encodable(request: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(request, name) for name in request.__struct_fields__}
    params = fields["sampling_params"]
    fields["sampling_params"] = {name: repr(getattr(params, name)) for name in params.__struct_fields__}
    return fields


@pytest.mark.parametrize(
    "extras",
    [
        {"constraint": Constraint(kind=ConstraintKind.REGEX, text="[ab]")},
        {"logprobs": 1},
        {"prompt_logprobs": 0},
        {"sampling": Sampling(max_output_tokens=1, logit_bias={7: 100.0})},
        {"sampling": Sampling(max_output_tokens=1, stop_token_ids=(9,))},
    ],
    ids=["constraint", "logprobs", "prompt_logprobs", "logit_bias", "stop_token_ids"],
)
async def test_what_vllm_has_to_look_at_goes_its_way(
    vllm: RealVllm, monkeypatch: pytest.MonkeyPatch, extras: dict[str, Any]
) -> None:
    """It is answered all the same."""
    asked: list[str] = []
    engine: Any = vllm.engine._started.engine  # type: ignore[attr-defined]
    process_inputs = engine.input_processor.process_inputs_async, engine.input_processor.process_inputs

    async def counting_async(*arguments: Any, **keywords: Any) -> Any:
        asked.append("raw")
        return await process_inputs[0](*arguments, **keywords)

    def counting(*arguments: Any, **keywords: Any) -> Any:
        asked.append("rendered")
        return process_inputs[1](*arguments, **keywords)

    monkeypatch.setattr(engine.input_processor, "process_inputs_async", counting_async)
    monkeypatch.setattr(engine.input_processor, "process_inputs", counting)
    plain = {"job_id": "plain", "prompt_token_ids": [3, 4], "sampling": Sampling(max_output_tokens=1)}
    assert await _tokens(vllm, GenerationJob(**plain)) == 1  # type: ignore[arg-type]
    assert asked == []
    assert await _tokens(vllm, GenerationJob(**{**plain, "job_id": "extra", **extras})) == 1
    assert len(asked) == 1


async def _tokens(vllm: RealVllm, job: GenerationJob) -> int:
    counts: list[int] = []
    await vllm.engine.generate(job, lambda output: counts.append(len(output.token_ids)))
    return sum(counts)
