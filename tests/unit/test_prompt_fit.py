from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import ContextLengthExceededError, GatewayError, KvPoolExceededError
from gateway.prompt import fit, prepare, remaining_output_tokens
from gateway.request import parse_generate, parse_tokenize
from tests.fakes.served_models import served_model
from tidegate.inference.v1 import generation_pb2, inference_service_pb2

# A model of 512 tokens context, 448 of KV pool, 256 of output, 64 of output by default.


def _fit(prompt_tokens: int, *, context_length: int = 512, kv_pool_tokens: int = 448, **sampling: Any) -> int:
    model = served_model(context_length=context_length, kv_pool_tokens=kv_pool_tokens)
    request = inference_service_pb2.GenerateRequest(
        model="m", text="x", sampling=generation_pb2.SamplingOptions(**sampling)
    )
    return fit(parse_generate(request, {"m": model}), prompt_tokens)


@pytest.mark.parametrize(
    ("prompt_tokens", "sampling", "expected"),
    [
        (1, {}, 64),
        (384, {}, 64),
        (400, {}, 48),
        (447, {}, 1),
        (100, {"max_output_tokens": 256}, 256),
        (400, {"max_output_tokens": 48}, 48),
        (100, {"min_output_tokens": 80}, 80),
        (400, {"min_output_tokens": 48}, 48),
    ],
)
def test_output_is_as_asked_or_what_fits(prompt_tokens: int, sampling: dict[str, int], expected: int) -> None:
    """Unset, it is the model's default or what remains; a minimum raises the default."""
    assert expected == _fit(prompt_tokens, **sampling)


@pytest.mark.parametrize(
    ("prompt_tokens", "limits", "sampling", "error", "fitting"),
    [
        (512, {"kv_pool_tokens": 9999}, {}, ContextLengthExceededError, "0"),
        (500, {"kv_pool_tokens": 9999}, {"max_output_tokens": 13}, ContextLengthExceededError, "12"),
        (100, {"context_length": 9999}, {"min_output_tokens": 200, "max_output_tokens": 256}, None, ""),
        (448, {}, {}, KvPoolExceededError, "0"),
        (400, {}, {"max_output_tokens": 49}, KvPoolExceededError, "48"),
        (400, {}, {"min_output_tokens": 49}, KvPoolExceededError, "48"),
        (440, {"kv_pool_tokens": 455}, {"max_output_tokens": 9}, KvPoolExceededError, "8"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(
    prompt_tokens: int,
    limits: dict[str, int],
    sampling: dict[str, int],
    error: type[GatewayError] | None,
    fitting: str,
) -> None:
    """The error's metadata has the limit, what was asked and the largest output that fits; pools count whole blocks."""
    if error is None:
        assert _fit(prompt_tokens, **limits, **sampling)
        return
    with pytest.raises(error) as caught:
        _fit(prompt_tokens, **limits, **sampling)
    assert str(prompt_tokens) == caught.value.metadata["prompt_tokens"]
    assert fitting == caught.value.metadata["fitting_max_output_tokens"]
    assert all(value in str(caught.value) for value in caught.value.metadata.values() if value != "0")


def test_remaining_output_is_never_negative() -> None:
    """Tokenize tells how much fits behind a prompt, be it none."""
    assert [256, 48, 0, 0] == [remaining_output_tokens(served_model(), count) for count in (1, 400, 448, 9999)]


def test_defaults_of_the_model_fill_what_is_unset() -> None:
    """What a request says stays; its stop ids join the model's; what it leaves out comes from the model."""
    request = inference_service_pb2.GenerateRequest(
        model="m", text="x", sampling=generation_pb2.SamplingOptions(top_p=0.5, temperature=0, stop_token_ids=[7])
    )
    valid = parse_generate(request, {"m": served_model()})
    assert generation_pb2.SamplingOptions(top_p=0.5, temperature=0, stop_token_ids=[3, 7]) == valid.options.sampling
    assert generation_pb2.CRITICALITY_CRITICAL == valid.criticality
    assert generation_pb2.SHORT_DEADLINE_POLICY_CLAMP == valid.short_deadline_policy
    assert valid.constraint is None


@pytest.mark.parametrize("kind", ["text", "token_ids", "chat"])
def test_every_kind_of_prompt_is_tokenised(kind: str) -> None:
    """Token ids stay as they are; only a chat is rendered."""
    request = inference_service_pb2.TokenizeRequest(model="m")
    if kind == "text":
        request.text = "Paris"
    elif kind == "token_ids":
        request.token_ids.ids.extend([5, 6])
    else:
        request.chat.messages.add(role=2, content="Paris")
    prompt = prepare(parse_tokenize(request, {"m": served_model()}))
    assert (
        "<|im_start|>user\nParis<|im_end|>\n<|im_start|>assistant\n" if kind == "chat" else ""
    ) == prompt.rendered_prompt
    assert prompt.token_ids
    assert kind != "token_ids" or (5, 6) == tuple(prompt.token_ids)
