from __future__ import annotations

import math
from typing import Any

import pytest

from tests.fakes.scripted_engine import FACTS
from tidegate.inference.v1 import generation_pb2
from tidegate.rpc.token_ids import packed
from tidegate.worker.v1 import worker_service_pb2
from worker.engine import Constraint, ConstraintKind, GenerationJob, Sampling
from worker.errors import InvalidJobError
from worker.job import parse_job


def _request(**sampling: Any) -> worker_service_pb2.GenerateRequest:
    options = {"max_output_tokens": 10, **sampling}
    return worker_service_pb2.GenerateRequest(
        prompt_token_ids=packed([1, 2]), sampling=generation_pb2.SamplingOptions(**options)
    )


def _prompt(*token_ids: int) -> worker_service_pb2.GenerateRequest:
    request = _request()
    request.prompt_token_ids = packed(token_ids)
    return request


def _continued(*token_ids: int, **fields: Any) -> worker_service_pb2.GenerateRequest:
    request = _request()
    request.MergeFrom(worker_service_pb2.GenerateRequest(continued_token_ids=token_ids, **fields))
    return request


def _parse(
    request: worker_service_pb2.GenerateRequest, defaults: generation_pb2.SamplingOptions | None = None
) -> GenerationJob:
    return parse_job(
        request,
        job_id="job-1",
        facts=FACTS,
        defaults=defaults or generation_pb2.SamplingOptions(),
    )


def test_unset_options_take_the_checkpoints_defaults() -> None:
    """What the request sets wins, also where it sets zero."""
    defaults = generation_pb2.SamplingOptions(temperature=0.6, top_p=0.5, top_k=7)

    assert (
        Sampling(max_output_tokens=10, temperature=0.0, top_p=0.5, top_k=7)
        == _parse(_request(temperature=0.0), defaults).sampling
    )


def test_a_checkpoints_least_output_gives_way_to_the_most_asked_for() -> None:
    """The caller never named it. What it does name is obeyed, or refused."""
    defaults = generation_pb2.SamplingOptions(min_output_tokens=20)
    assert 10 == _parse(_request(), defaults).sampling.min_output_tokens
    with pytest.raises(InvalidJobError, match="min_output_tokens"):
        _parse(_request(min_output_tokens=11), defaults)


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("prompt_token_ids", _prompt()),
        ("prompt_token_ids", _prompt(2**32 - 1)),
        ("prompt_token_ids", _prompt(460)),
        ("prompt_token_ids", worker_service_pb2.GenerateRequest(prompt_token_ids=b"12345")),
        ("prompt_token_ids", _request(max_output_tokens=511)),
        ("sampling.max_output_tokens", worker_service_pb2.GenerateRequest(prompt_token_ids=packed([1]))),
        ("sampling.max_output_tokens", _request(max_output_tokens=0)),
        ("sampling.min_output_tokens", _request(min_output_tokens=11)),
        ("sampling.min_output_tokens", _request(min_output_tokens=-1)),
        ("sampling.temperature", _request(temperature=-0.1)),
        ("sampling.temperature", _request(temperature=math.nan)),
        ("sampling.temperature", _request(temperature=math.inf)),
        ("sampling.top_p", _request(top_p=0.0)),
        ("sampling.top_p", _request(top_p=1.1)),
        ("sampling.top_k", _request(top_k=-1)),
        ("sampling.top_k", _request(top_k=1_025)),
        ("sampling.min_p", _request(min_p=math.nan)),
        ("sampling.presence_penalty", _request(presence_penalty=2.5)),
        ("sampling.frequency_penalty", _request(frequency_penalty=-2.5)),
        ("sampling.repetition_penalty", _request(repetition_penalty=0.0)),
        ("sampling.seed", _request(seed=1)),
        ("sampling.stop_strings", _request(stop_strings=["x"] * 17)),
        ("sampling.stop_strings", _request(stop_strings=[""])),
        ("sampling.stop_strings", _request(stop_strings=["x" * 257])),
        ("sampling.stop_token_ids", _request(stop_token_ids=[1] * 65)),
        ("sampling.stop_token_ids", _request(stop_token_ids=[460])),
        ("sampling.logit_bias", _request(logit_bias={1: math.nan})),
        ("sampling.logit_bias", _request(logit_bias={1: 101})),
        ("sampling.logit_bias", _request(logit_bias={460: 1})),
        ("continued_token_ids", _continued(460)),
        ("continued_token_ids", _continued(*range(11))),
        ("continued_text_byte_count", _continued(1, continued_text_byte_count=-1)),
        ("output.prompt_logprobs", _continued(1, output=generation_pb2.OutputOptions(prompt_logprobs=1))),
        ("sampling.logit_bias", _request(logit_bias=dict.fromkeys(range(-50, 256), 0.0))),
    ],
)
def test_each_bound_is_checked(field: str, request_: worker_service_pb2.GenerateRequest) -> None:
    """A value that the engine cannot bear is refused by the name of its field."""
    with pytest.raises(InvalidJobError) as refusal:
        _parse(request_)

    assert {field} == {violation.field for violation in refusal.value.violations}


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs"])
def test_too_many_logprobs_are_refused(name: str) -> None:
    """Twenty alternatives are the most."""
    request = _request()
    setattr(request.output, name, 21)

    with pytest.raises(InvalidJobError, match=f"output.{name}"):
        _parse(request)


@pytest.mark.parametrize(
    ("wire", "constraint"),
    [
        ({"json_schema": "{}"}, Constraint(kind=ConstraintKind.JSON_SCHEMA, text="{}")),
        ({"regex": "a"}, Constraint(kind=ConstraintKind.REGEX, text="a")),
        ({"grammar": "g"}, Constraint(kind=ConstraintKind.GRAMMAR, text="g")),
        ({"choice": {"choices": ["a", "b"]}}, Constraint(kind=ConstraintKind.CHOICE, choices=("a", "b"))),
        ({"json_object": {}}, Constraint(kind=ConstraintKind.JSON_OBJECT)),
    ],
)
def test_each_kind_of_constraint_is_understood(wire: dict[str, Any], constraint: Constraint) -> None:
    """Every member of the oneof has its kind."""
    request = _request()
    request.constraint.MergeFrom(generation_pb2.OutputConstraint(**wire))

    assert constraint == _parse(request).constraint
