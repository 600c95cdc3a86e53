from __future__ import annotations

from gateway.jobs import PreparedRequest
from gateway.policy.output_budget import OutputBudget
from gateway.resume import ResumeTokens
from tests.fakes.served_models import served_model
from tidegate.inference.v1 import generation_pb2, inference_service_pb2


def _prepared(sampling: generation_pb2.SamplingOptions, *, temperature: float = 0.5) -> PreparedRequest:
    request = inference_service_pb2.GenerateRequest(model="m", text="hello", sampling=sampling)
    defaults = generation_pb2.SamplingOptions(temperature=temperature, stop_token_ids=[3], max_output_tokens=7)
    return PreparedRequest.from_public(
        request,
        {"m": served_model(sampling_defaults=defaults)},
        response_id="r",
        tenant="t",
        resume_tokens=ResumeTokens((), lifetime_s=1.0),
    )


def test_the_models_defaults_are_filled_in() -> None:
    """But for the length, which depends on the prompt; of lists, the entries of both count."""
    asked = generation_pb2.SamplingOptions(top_p=0.5, stop_token_ids=[1])
    expected = generation_pb2.SamplingOptions(top_p=0.5, temperature=0.25, stop_token_ids=[3, 1])
    assert expected == _prepared(asked, temperature=0.25).request.sampling


def test_requests_that_ask_for_the_same_hold_it_once() -> None:
    """As long as their streams last; and not what others ask for, or other models fill in."""
    one, same, other = (
        _prepared(generation_pb2.SamplingOptions(top_p=top_p)).request.sampling for top_p in (0.5, 0.5, 0.75)
    )
    assert one is same
    assert (0.5, 0.75) == (one.top_p, other.top_p)
    assert 1.0 == _prepared(generation_pb2.SamplingOptions(top_p=0.5), temperature=1.0).request.sampling.temperature


def test_a_job_leaves_the_options_of_its_request_as_they_are() -> None:
    """They are other requests', too: what is left of the time is the job's own."""
    prepared = _prepared(generation_pb2.SamplingOptions(max_output_tokens=9))
    job = prepared.job(OutputBudget(max_output_tokens=5, is_clamped=True))
    assert (5, 9) == (job.sampling.max_output_tokens, prepared.request.sampling.max_output_tokens)
