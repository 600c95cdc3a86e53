from __future__ import annotations

import functools
from typing import Any

import pytest

from gateway.jobs import Delivered, PreparedRequest
from gateway.model import ServedModel
from gateway.policy.output_budget import OutputBudget
from gateway.resume import ResumeTokens
from tests.fakes.served_models import served_model
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.worker.v1 import worker_service_pb2

_UNKNOWN_FIELD = b"\xc2\x3e\x03new"  # field 1000


@functools.cache
def _model(temperature: float) -> ServedModel:
    defaults = generation_pb2.SamplingOptions(temperature=temperature, stop_token_ids=[3], max_output_tokens=7)
    return served_model(sampling_defaults=defaults, supports_seed=True)


def _prepared(sampling: generation_pb2.SamplingOptions, *, temperature: float = 0.5, **output: Any) -> PreparedRequest:
    request = inference_service_pb2.GenerateRequest(
        model="m", text="hello", sampling=sampling, output=generation_pb2.OutputOptions(**output)
    )
    return _from_public(request, _model(temperature))


def _from_public(request: inference_service_pb2.GenerateRequest, model: ServedModel) -> PreparedRequest:
    return PreparedRequest.from_public(
        request,
        {"m": model},
        response_id="r",
        tenant="t",
        resume_tokens=ResumeTokens((), lifetime_s=1.0),
    )


def test_the_models_defaults_are_filled_in() -> None:
    """But for the length, which depends on the prompt; of lists, the entries of both count."""
    asked = generation_pb2.SamplingOptions(top_p=0.5, stop_token_ids=[1])
    expected = generation_pb2.SamplingOptions(top_p=0.5, temperature=0.25, stop_token_ids=[3, 1])
    assert expected == _prepared(asked, temperature=0.25).request.options.sampling


@pytest.mark.parametrize(("most", "least"), [(5, 5), (50, 20), (None, 20)])
def test_the_models_least_output_gives_way_to_the_most_asked_for(most: int | None, least: int) -> None:
    """The two would contradict each other, of which the caller, who named one of them, can know nothing."""
    model = served_model(sampling_defaults=generation_pb2.SamplingOptions(min_output_tokens=20))
    asked = generation_pb2.SamplingOptions(max_output_tokens=most)
    request = inference_service_pb2.GenerateRequest(model="m", text="hello", sampling=asked)
    assert least == _from_public(request, model).request.options.min_output_tokens


def test_requests_that_ask_for_the_same_hold_it_once() -> None:
    """As long as their streams last; and not what others ask for, or other models fill in."""
    one, same, other = (
        _prepared(generation_pb2.SamplingOptions(top_p=top_p)).request.options.sampling for top_p in (0.5, 0.5, 0.75)
    )
    assert one is same
    assert (0.5, 0.75) == (one.top_p, other.top_p)
    warmer = _prepared(generation_pb2.SamplingOptions(top_p=0.5), temperature=1.0).request.options.sampling
    assert 1.0 == warmer.temperature


def test_long_options_are_not_kept() -> None:
    """So that nobody fills memory with them; as they are, they are valid all the same."""
    stops = [f"{number:0255}" for number in range(16)]
    one, same = (_prepared(generation_pb2.SamplingOptions(stop_strings=stops)).request.options for _ in range(2))
    assert one is not same
    assert stops == list(one.sampling.stop_strings)


def test_what_is_not_known_is_neither_kept_nor_told_a_worker() -> None:
    """Fields of a later version, which nobody has checked: in no digest, no job, and nothing that stays."""
    plain = inference_service_pb2.GenerateRequest(model="m", text="hello")
    plain.sampling.temperature, plain.output.logprobs, plain.constraint.regex = 0.5, 1, "a+"
    strange = inference_service_pb2.GenerateRequest()
    strange.CopyFrom(plain)
    for part in (strange.sampling, strange.output, strange.constraint):
        part.MergeFromString(_UNKNOWN_FIELD)
    assert plain != strange
    one, other = (_from_public(request, _model(1.0)) for request in (plain, strange))
    assert one.demand.digest == other.demand.digest
    assert one.request.constraint == other.request.constraint
    assert (one.request.options.sampling, one.request.options.output, one.request.options.job) == (
        other.request.options.sampling,
        other.request.options.output,
        other.request.options.job,
    )


def test_a_job_leaves_the_options_of_its_request_as_they_are() -> None:
    """They are other requests', too: what is left of the time is the job's own."""
    prepared = _prepared(generation_pb2.SamplingOptions(max_output_tokens=9))
    job = worker_service_pb2.GenerateRequest.FromString(
        prepared.job(OutputBudget(max_output_tokens=5, is_clamped=True))
    )
    assert (5, 9) == (job.sampling.max_output_tokens, prepared.request.options.sampling.max_output_tokens)


def test_a_job_asks_for_all_that_the_request_asks_for() -> None:
    """What is held for all requests and what is this one's own come to one message."""
    prepared = _prepared(generation_pb2.SamplingOptions(top_p=0.5, stop_token_ids=[1], max_output_tokens=9, seed=3))
    job = worker_service_pb2.GenerateRequest.FromString(
        prepared.job(OutputBudget(max_output_tokens=5, is_clamped=True))
    )
    expected = worker_service_pb2.GenerateRequest(
        response_id="r",
        tenant="t",
        checkpoint_sha256="c",
        prompt_token_ids=prepared.packed_ids,
        is_budget_clamped=True,
        criticality=generation_pb2.CRITICALITY_CRITICAL,
    )
    expected.output.include_token_ids = True
    expected.sampling.MergeFrom(prepared.request.options.sampling)
    expected.sampling.max_output_tokens = 5
    assert expected == job


def test_a_job_that_goes_on_asks_no_more_for_what_came_with_the_first_tokens() -> None:
    """A continuation cannot repeat it; one before the first token can."""
    prepared = _prepared(generation_pb2.SamplingOptions(), prompt_logprobs=2)
    jobs = [
        worker_service_pb2.GenerateRequest.FromString(
            prepared.job(
                OutputBudget(max_output_tokens=5, is_clamped=False),
                delivered=Delivered(token_ids=ids, text_bytes=len(ids), continuations=1),
            )
        )
        for ids in ((), (7, 8))
    ]
    assert [2, None] == [job.output.prompt_logprobs if job.output.HasField("prompt_logprobs") else None for job in jobs]
    assert [[], [7, 8]] == [list(job.continued_token_ids) for job in jobs]
    assert [True, True] == [job.output.include_token_ids for job in jobs]


def test_the_seed_is_no_part_of_a_requests_digest() -> None:
    """A poison is not one for its luck; whatever else is asked for makes another request."""
    asked = (
        generation_pb2.SamplingOptions(top_p=0.5),
        generation_pb2.SamplingOptions(top_p=0.5, seed=1),
        generation_pb2.SamplingOptions(top_p=0.25, seed=1),
    )
    digests = [_prepared(sampling).demand.digest for sampling in asked]
    assert digests[0] == digests[1]
    assert digests[1] != digests[2]
