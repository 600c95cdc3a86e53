"""From a valid request to the prompt's token ids, and to the output that fits behind them."""

from __future__ import annotations

from gateway.chat import Chat
from gateway.errors import ContextLengthExceededError, KvPoolExceededError
from gateway.model import ServedModel
from gateway.renderer import Prompt
from gateway.request import ValidRequest, ValidTokenizeRequest
from tidegate.rpc.status import Violation
from tidegate.rpc.token_ids import packed


def prepare(request: ValidTokenizeRequest) -> Prompt:
    """Render and tokenise. Costs as ``token_ids`` does, and raises as it does."""
    if isinstance(request.prompt, Chat):
        return request.model.renderer.prompt(request.prompt)
    return Prompt(packed_ids=token_ids(request))


def token_ids(request: ValidRequest | ValidTokenizeRequest) -> bytes:
    """The packed ids of the prompt. Up to a second of CPU time for the longest ones: call it in an executor.

    Raises ``ChatTemplateRejectedError``, or ``InvalidRequestError`` for text that cannot be encoded.
    """
    prompt, renderer = request.prompt, request.model.renderer
    if isinstance(prompt, Chat):
        return renderer.encode(prompt)
    return renderer.encode_text(prompt) if isinstance(prompt, str) else packed(prompt)


def remaining_output_tokens(model: ServedModel, prompt_tokens: int) -> int:
    """How many output tokens fit behind a prompt, at least 0."""
    room = min(model.context_length, _pool_tokens(model)) - prompt_tokens
    return max(0, min(room, model.max_output_tokens))


def fit(request: ValidRequest, prompt_tokens: int) -> int:
    """The ``max_output_tokens`` to run with: as asked, or as many of the model's default as fit.

    Raises ``ContextLengthExceededError`` or ``KvPoolExceededError`` when what was asked for does not fit.
    """
    model, asked = request.model, request.options.max_output_tokens
    # Something has to be generated, and no less than the caller insists on.
    requested = max(1, request.options.min_output_tokens) if asked is None else asked
    if prompt_tokens + requested <= min(model.context_length, _pool_tokens(model)):
        if asked is not None:
            return asked
        return max(requested, min(model.default_max_output_tokens, remaining_output_tokens(model, prompt_tokens)))
    is_too_long = prompt_tokens + requested > model.context_length
    limit = model.context_length if is_too_long else _pool_tokens(model)
    holder = "the model's context" if is_too_long else "the KV cache of any worker"
    error = ContextLengthExceededError if is_too_long else KvPoolExceededError
    field = _field_at_fault(request, requested, prompt_tokens=prompt_tokens, limit=limit)
    fitting = remaining_output_tokens(model, prompt_tokens)
    advice = f"max_output_tokens of at most {fitting} fits" if fitting else "the prompt alone does not leave room"
    message = (
        f"{prompt_tokens} prompt tokens and {requested} output tokens do not fit {holder}, {limit} tokens: {advice}"
    )
    raise error(
        message,
        metadata={
            "limit": str(limit),
            "prompt_tokens": str(prompt_tokens),
            "requested": str(requested),
            "fitting_max_output_tokens": str(fitting),
        },
        violations=[Violation(field=field, description=message)],
    )


def _pool_tokens(model: ServedModel) -> int:
    """Tokens of the largest KV pool that one request can hold: whole blocks."""
    return model.kv_pool_tokens // model.block_size * model.block_size


def _field_at_fault(request: ValidRequest, requested: int, *, prompt_tokens: int, limit: int) -> str:
    """The prompt, when it is too long for any output, or else the option that asks for too much."""
    if prompt_tokens >= limit or requested == 1:
        return (
            "chat" if isinstance(request.prompt, Chat) else "text" if isinstance(request.prompt, str) else "token_ids"
        )
    return f"sampling.{'min' if request.options.max_output_tokens is None else 'max'}_output_tokens"
