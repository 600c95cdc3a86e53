"""Answers Tokenize: the prompt as the model would see it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.model import ServedModel
from gateway.prompt import prepare, remaining_output_tokens
from gateway.request import parse_tokenize
from tidegate.inference.v1 import inference_service_pb2


def tokenize(
    request: inference_service_pb2.TokenizeRequest, models: Mapping[str, ServedModel]
) -> inference_service_pb2.TokenizeResponse:
    """The ids, and the text that they were made of. Costs CPU: call it in a thread. Raises ``GatewayError``."""
    valid = parse_tokenize(request, models)
    prompt = prepare(valid)
    token_ids = prompt.token_ids
    return inference_service_pb2.TokenizeResponse(
        token_ids=token_ids,
        token_count=len(token_ids),
        rendered_prompt=prompt.rendered_prompt,
        max_output_tokens=remaining_output_tokens(valid.model, len(token_ids)),
    )
