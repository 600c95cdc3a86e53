from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from tests.data.hostile_constraints import HOSTILE_CONSTRAINTS
from tests.fakes.real_vllm import RealVllm
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from worker.constraints import ConstraintRejectedError
from worker.engine import EngineError

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

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
    "json_schema": generation_pb2.OutputConstraint(json_schema=_SCHEMA),
    "regex": generation_pb2.OutputConstraint(regex="[A-Z][a-z]{2,9}, [0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "choice": generation_pb2.OutputConstraint(
        choice=generation_pb2.ChoiceConstraint(choices=["Paris", "London", "Rome, of course", 'I "doubt" it'])
    ),
    "grammar": generation_pb2.OutputConstraint(grammar='root ::= sum\nsum ::= [0-9]{1,3} (" + " [0-9]{1,3}){1,3}'),
}


@pytest.mark.parametrize("kind", _CONSTRAINTS)
async def test_50_of_50_outputs_have_the_form_asked_for(vllm: RealVllm, kind: str) -> None:
    """At the highest temperature, where this small model would otherwise write anything."""

    async def one(seed: int) -> generation_pb2.Finished:
        request = vllm.worker.request(
            vllm.chat("Tell me of a city on a river."),
            max_output_tokens=120,
            sampling=generation_pb2.SamplingOptions(temperature=2.0, seed=seed),
            constraint=_CONSTRAINTS[kind],
        )
        responses: list[inference_service_pb2.GenerateResponse] = [
            response async for response in vllm.worker.stub.Generate(request)
        ]
        return responses[-1].finished

    finished = [
        answer for start in range(0, 50, 10) for answer in await asyncio.gather(*map(one, range(start, start + 10)))
    ]
    assert [generation_pb2.CONSTRAINT_VERDICT_SATISFIED] * 50 == [answer.constraint_verdict for answer in finished]
    assert {generation_pb2.FINISH_REASON_STOP} == {answer.reason for answer in finished}


async def test_an_output_cut_by_its_length_is_incomplete(vllm: RealVllm) -> None:
    """Which is no violation."""
    request = vllm.worker.request(
        vllm.chat("Tell me of a city."), max_output_tokens=3, constraint=_CONSTRAINTS["json_schema"]
    )
    responses = [response async for response in vllm.worker.stub.Generate(request)]
    assert generation_pb2.CONSTRAINT_VERDICT_INCOMPLETE == responses[-1].finished.constraint_verdict


async def test_least_tokens_do_not_contradict_a_constraint(vllm: RealVllm) -> None:
    """Where the form is complete, only the end is left to generate."""
    request = vllm.worker.request(
        vllm.chat("Yes or no?"),
        max_output_tokens=40,
        sampling=generation_pb2.SamplingOptions(min_output_tokens=30),
        constraint=generation_pb2.OutputConstraint(choice=generation_pb2.ChoiceConstraint(choices=["yes", "no"])),
    )
    responses = [response async for response in vllm.worker.stub.Generate(request)]
    assert generation_pb2.CONSTRAINT_VERDICT_SATISFIED == responses[-1].finished.constraint_verdict


@pytest.mark.parametrize("name", HOSTILE_CONSTRAINTS)
async def test_the_engine_outlives_a_hostile_constraint(vllm: RealVllm, name: str) -> None:
    """It is refused, or obeyed at a bearable price."""
    constraint = HOSTILE_CONSTRAINTS[name]
    try:
        await vllm.model.constraints.check(constraint)
    except ConstraintRejectedError:
        pass
    else:
        assert not name.startswith("refused:")
        job = vllm.job(vllm.chat("Go."), constraint=constraint, temperature=1.0, max_output_tokens=8)
        with contextlib.suppress(EngineError):  # vLLM refuses some that xgrammar compiles
            await vllm.answer(job)
    assert await vllm.is_well()
