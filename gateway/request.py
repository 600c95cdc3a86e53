"""Turns public requests into valid ones, the only form that the rest of the gateway knows.

All violations of a request are found in one pass and told together. What needs the prompt's length is judged later, by
gateway/prompt.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from gateway.chat import Chat
from gateway.chat_prompt import MAX_PROMPT_BYTES, parse_chat
from gateway.constraint import parse_constraint
from gateway.errors import InvalidRequestError, ModelNotFoundError
from gateway.model import ServedModel
from gateway.options import Options
from gateway.sampling import check_output, check_sampling, resolved_output, resolved_sampling
from gateway.violations import Violations, quoted
from tidegate.inference.v1 import generation_pb2, inference_service_pb2
from tidegate.rpc.status import Violation

_MAX_NAMED_IDS = 16  # a request may hold a million
_SHOWN_CHARACTERS = 128  # of a model's name that nobody knows

_CRITICALITIES = frozenset(generation_pb2.Criticality.values())
_SHORT_DEADLINE_POLICIES = frozenset(generation_pb2.ShortDeadlinePolicy.values())

# A conversation, plain text, or token ids.
PromptSource = Chat | str | tuple[int, ...]


@dataclass(slots=True, kw_only=True, init=False)
class ValidRequest:
    """A request to generate.

    ``constraint`` is in canonical form. ``criticality`` and ``short_deadline_policy`` are never UNSPECIFIED.
    """

    model: ServedModel
    prompt: PromptSource
    options: Options
    constraint: generation_pb2.OutputConstraint | None
    criticality: generation_pb2.Criticality.ValueType
    short_deadline_policy: generation_pb2.ShortDeadlinePolicy.ValueType

    def __init__(  # noqa: PLR0913 - its fields
        self,
        *,
        model: ServedModel,
        prompt: PromptSource,
        options: Options,
        constraint: generation_pb2.OutputConstraint | None,
        criticality: generation_pb2.Criticality.ValueType,
        short_deadline_policy: generation_pb2.ShortDeadlinePolicy.ValueType,
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.options = options
        self.constraint = constraint
        self.criticality = criticality
        self.short_deadline_policy = short_deadline_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidTokenizeRequest:
    """A request to tokenise."""

    model: ServedModel
    prompt: PromptSource


def parse_generate(request: inference_service_pb2.GenerateRequest, models: Mapping[str, ServedModel]) -> ValidRequest:
    """The valid request. Raises ``InvalidRequestError`` with every violation, or ``ModelNotFoundError``."""
    model = find_model(request.model, models)
    violations = Violations()
    prompt = _parse_prompt(request, model, violations)
    is_constrained = request.HasField("constraint")
    sampling = request.sampling.SerializeToString()
    output = request.output.SerializeToString() if request.HasField("output") else b""
    options = model.known_options.find(sampling, output, is_constrained=is_constrained)
    if options is None:
        check_sampling(request.sampling, model, violations, is_constrained=is_constrained)
    constraint = None
    if is_constrained:
        constraint = parse_constraint(request.constraint, model.constraint_kinds, violations)
    criticality, policy = request.criticality, request.short_deadline_policy
    if criticality not in _CRITICALITIES:
        violations.add("criticality", "is not a known criticality")
    if policy not in _SHORT_DEADLINE_POLICIES:
        violations.add("short_deadline_policy", "is not a known policy")
    if options is None:
        check_output(request.output, violations)
    violations.raise_if_any()
    if options is None:
        options = Options(
            sampling=resolved_sampling(request.sampling, model.sampling_defaults),
            output=resolved_output(request.output),
            checkpoint_sha256=model.checkpoint_sha256,
        )
        model.known_options.keep(sampling, output, is_constrained=is_constrained, options=options)
    return ValidRequest(
        model=model,
        prompt=prompt,
        options=options,
        constraint=constraint,
        criticality=criticality or generation_pb2.CRITICALITY_CRITICAL,
        short_deadline_policy=policy or generation_pb2.SHORT_DEADLINE_POLICY_CLAMP,
    )


def parse_tokenize(
    request: inference_service_pb2.TokenizeRequest, models: Mapping[str, ServedModel]
) -> ValidTokenizeRequest:
    """The valid request. Raises as ``parse_generate`` does."""
    model = find_model(request.model, models)
    violations = Violations()
    prompt = _parse_prompt(request, model, violations)
    violations.raise_if_any()
    return ValidTokenizeRequest(model=model, prompt=prompt)


def find_model(name: str, models: Mapping[str, ServedModel]) -> ServedModel:
    """Without a model there are no limits by which the rest could be judged, so that this is told alone."""
    if not name:
        raise InvalidRequestError([Violation(field="model", description="is required")])
    model = models.get(name)
    if model is None:
        shown = quoted(name, max_characters=_SHOWN_CHARACTERS)
        told = name[:_SHOWN_CHARACTERS]  # a program compares it with what it asked for
        raise ModelNotFoundError(
            f"the model {shown} is not served here", metadata={"model": told}, resource=("tidegate.Model", told)
        )
    return model


def _parse_prompt(
    request: inference_service_pb2.GenerateRequest | inference_service_pb2.TokenizeRequest,
    model: ServedModel,
    violations: Violations,
) -> PromptSource:
    kind = request.WhichOneof("prompt")
    if kind == "chat":
        return parse_chat(request.chat, violations)
    if kind == "text":
        if not request.text:
            violations.add("text", "is empty")
        elif len(request.text) > MAX_PROMPT_BYTES or len(request.text.encode()) > MAX_PROMPT_BYTES:
            violations.add("text", f"is larger than {MAX_PROMPT_BYTES} bytes")
        return request.text
    if kind == "token_ids":
        ids = tuple(request.token_ids.ids)
        if not ids:
            violations.add("token_ids.ids", "is empty")
        elif min(ids) < 0 or max(ids) >= model.vocabulary_size:
            strange = (index for index, token_id in enumerate(ids) if not 0 <= token_id < model.vocabulary_size)
            for index in islice(strange, _MAX_NAMED_IDS):
                violations.add(f"token_ids.ids[{index}]", f"is not in the vocabulary of {model.vocabulary_size}")
        return ids
    violations.add("prompt", "one of chat, text and token_ids is required")
    return ()
