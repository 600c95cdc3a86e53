from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.real_vllm import Answer, RealVllm
from worker.engine import Constraint, ConstraintKind, Continued, EngineError, GenerationJob
from worker.output_text import OutputText
from worker.token_text import TokenText

# The goal is 100; the default keeps a run of all tests short.
TRIALS = int(os.environ.get("TIDEGATE_TEST_CUTS", "20"))

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

_CHOICES = ("Paris 🌊 Île-de-France", "Paris 🌊 Île de la Cité", "Łódź – 東京", "Łódź – 京都")
_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "pattern": "^[A-Z][a-z]{1,11}$"},
            "population": {"type": "integer", "minimum": 0, "maximum": 99_999_999},
            "rivers": {"type": "array", "items": {"enum": ["Seine", "Thames", "Tiber"]}, "maxItems": 2},
        },
        "required": ["city", "population", "rivers"],
        "additionalProperties": False,
    }
)
_CONSTRAINTS = {
    "json_schema": Constraint(kind=ConstraintKind.JSON_SCHEMA, text=_SCHEMA),
    "regex": Constraint(kind=ConstraintKind.REGEX, text="[A-Z][a-z]{2,9}, [0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "choice": Constraint(kind=ConstraintKind.CHOICE, choices=_CHOICES),
    "grammar": Constraint(kind=ConstraintKind.GRAMMAR, text='root ::= sum\nsum ::= [0-9]{1,3} (" + " [0-9]{1,3}){1,3}'),
}


def _cut(vllm: RealVllm, job: GenerationJob, token_ids: Sequence[int], count: int) -> GenerationJob:
    """``job`` as another worker goes on with it, when the client has the first ``count`` tokens and their text."""
    text = OutputText(TokenText(vllm.tokenizer, job.prompt_token_ids).decode, job.sampling)
    shown = "".join(text.push(token_id) for token_id in token_ids[:count])
    continued = Continued(token_ids=tuple(token_ids[:count]), text_bytes=len(shown.encode()))
    return replace(job, job_id=f"{job.job_id}-from-{count}", continued=continued)


def _whole_text(answer: Answer) -> str:
    return answer.outputs[0].continued_text + answer.text


# Decoding and prefilling add up numbers in another order. Where two tokens are as good as equally likely, in nats, that
# decides which of them is the likeliest, and the texts branch. In bfloat16 logits above 16 are an eighth apart, and two
# of them may each be off by two.
_TIE = 0.5


def _branches_at_a_tie(expected: Sequence[int], rest: Answer) -> bool:
    logprobs = [logprob for output in rest.outputs for logprob in output.logprobs]
    for token_id, logprob in zip(expected, logprobs, strict=False):
        if token_id != logprob.token_id:
            return {top[0]: top[2] for top in logprob.top}.get(token_id, -100.0) > logprob.logprob - _TIE
    return False


async def test_a_greedy_output_goes_on_as_if_nothing_had_happened(vllm: RealVllm) -> None:
    """Wherever it is cut: the same tokens, text and end, or tokens that were as likely."""
    job = vllm.job(vllm.chat("Tell me of Rome and the river."), max_output_tokens=40, logprobs=5)
    whole = await vllm.answer(job)
    cuts = range(1, len(whole.token_ids) + 1, 3)
    rests = await asyncio.gather(*(vllm.answer(_cut(vllm, job, whole.token_ids, count)) for count in cuts))
    for count, rest in zip(cuts, rests, strict=True):
        if whole.token_ids[count:] == rest.token_ids:
            assert (whole.text, whole.finish.reason) == (_whole_text(rest), rest.finish.reason)
        else:
            assert _branches_at_a_tie(whole.token_ids[count:], rest)


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param({"presence_penalty": 2.0, "frequency_penalty": 1.0}, id="presence and frequency"),
        pytest.param({"repetition_penalty": 1.3}, id="repetition"),
    ],
)
async def test_penalties_count_what_another_worker_generated(vllm: RealVllm, sampling: dict[str, Any]) -> None:
    """The next token is that of the whole output, but for ties: here a text that repeats itself without penalties."""
    job = vllm.job(vllm.chat("Say hello ten times: hello hello hello"), max_output_tokens=40, **sampling)
    whole = await vllm.answer(job)
    cuts = range(1, len(whole.token_ids))
    rests = await asyncio.gather(*(vllm.answer(_cut(vllm, job, whole.token_ids, count)) for count in cuts))
    same = sum(whole.token_ids[count] == rest.token_ids[0] for count, rest in zip(cuts, rests, strict=True))
    assert same >= 0.8 * len(cuts)
    assert all(count + len(rest.token_ids) <= 40 for count, rest in zip(cuts, rests, strict=True))


async def test_a_stop_string_is_found_across_the_cut(vllm: RealVllm) -> None:
    """However much of it the client's tokens hold, none of it is shown."""
    job = vllm.job(vllm.chat("Tell me of Rome and the river."), max_output_tokens=40)
    plain = await vllm.answer(job)
    stop = plain.text[20:32]
    stopping = replace(job, sampling=replace(job.sampling, stop_strings=(stop,)))
    whole = await vllm.answer(replace(stopping, job_id="stopping"))
    assert stop == whole.finish.stop_string
    text = OutputText(TokenText(vllm.tokenizer, job.prompt_token_ids).decode, stopping.sampling)
    shown = ""
    for count, token_id in enumerate(whole.token_ids[:-1], start=1):
        shown += text.push(token_id)
        if len(shown) < 20 - len(stop):  # farther on the continuation has no tie to branch at
            continue
        rest = await vllm.answer(_cut(vllm, stopping, whole.token_ids, count))
        assert (whole.text, stop) == (_whole_text(rest), rest.finish.stop_string)


@pytest.mark.parametrize("kind", _CONSTRAINTS)
async def test_all_outputs_cut_anywhere_keep_the_form_asked_for(vllm: RealVllm, kind: str) -> None:
    """At the highest temperature, cut at a place drawn for each: mostly inside of a string or a number."""
    rng = random.Random(kind)

    async def one(seed: int) -> bool:
        constraint = _CONSTRAINTS[kind]
        job = vllm.job(
            vllm.chat("Tell me of a city."), constraint=constraint, temperature=2.0, seed=seed, max_output_tokens=120
        )
        whole = await vllm.answer(job)
        rest = await vllm.answer(_cut(vllm, job, whole.token_ids, rng.randint(1, len(whole.token_ids))))
        return await vllm.model.constraints.verdict(constraint, _whole_text(rest))

    results = [
        result for start in range(0, TRIALS, 10) for result in await asyncio.gather(*map(one, range(start, start + 10)))
    ]
    assert [True] * TRIALS == results


async def test_an_output_that_does_not_fit_its_constraint_fails_alone(vllm: RealVllm) -> None:
    """Such as one that was tampered with: the engine goes on."""
    job = vllm.job(vllm.chat("Go."), constraint=_CONSTRAINTS["regex"])
    wrong = replace(job, continued=Continued(token_ids=tuple(vllm.tokenizer.encode("0").ids), text_bytes=1))
    with pytest.raises(EngineError):
        await vllm.answer(wrong)
    assert await vllm.is_well()
