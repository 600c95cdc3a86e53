"""Checks sampling and output options by the bounds in generation.proto, and fills in the model's defaults."""

from __future__ import annotations

from typing import NamedTuple

from gateway.model import ServedModel
from gateway.violations import Violations
from tidegate.inference.v1 import generation_pb2

_MAX_STOP_STRINGS = 16
_MAX_STOP_STRING_CHARACTERS = 256
_MAX_STOP_TOKEN_IDS = 64
_MAX_LOGIT_BIAS = 300
_MAX_LOGPROBS = 20
# Each of these can end a text before it has the form that it is to have, or keep it from ending when it has.
_AGAINST_CONSTRAINT = ("min_output_tokens", "stop_strings", "stop_token_ids")


class _Range(NamedTuple):
    """Values from ``low`` to ``high``; ``low`` itself is left out when ``is_open``. NaN is in no range."""

    low: float
    high: float
    is_open: bool = False

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.is_open and value == self.low)

    def __str__(self) -> str:
        start = f"above {self.low:g}, at most" if self.is_open else f"{self.low:g} to"
        return f"has to be {start} {self.high:g}"


_RANGES = {
    "temperature": _Range(0, 2),
    "top_p": _Range(0, 1, is_open=True),
    "top_k": _Range(0, 1024),
    "min_p": _Range(0, 1),
    "presence_penalty": _Range(-2, 2),
    "frequency_penalty": _Range(-2, 2),
    "repetition_penalty": _Range(0, 2, is_open=True),
}
_LOGIT_BIAS = _Range(-100, 100)
_LOGPROBS = _Range(0, _MAX_LOGPROBS)


def check_sampling(
    options: generation_pb2.SamplingOptions,
    model: ServedModel,
    violations: Violations,
    *,
    is_constrained: bool,
) -> None:
    """Note in ``violations`` what is wrong with ``options``."""
    given = {descriptor.name: value for descriptor, value in options.ListFields()}
    for name, value in given.items():
        allowed = _RANGES.get(name)
        if allowed is not None and not allowed.holds(value):
            violations.add(f"sampling.{name}", str(allowed))
    _check_output_tokens(options, model, violations)
    if options.HasField("seed") and not model.supports_seed:
        violations.add("sampling.seed", "the model's engine cannot repeat its sampling")
    if "stop_strings" in given or "stop_token_ids" in given:
        _check_stops(options, model, violations)
    if "logit_bias" in given:
        _check_logit_bias(options, model, violations)
    if is_constrained:
        for name in _AGAINST_CONSTRAINT:
            if given.get(name):
                violations.add(f"sampling.{name}", "contradicts the output constraint")


def resolved_sampling(
    options: generation_pb2.SamplingOptions, defaults: generation_pb2.SamplingOptions
) -> generation_pb2.SamplingOptions:
    """``options`` with the model's ``defaults`` where it says nothing; lists hold the entries of both.

    What a client of a later version says beside it, nobody has checked, and no worker is told.
    """
    resolved = generation_pb2.SamplingOptions()
    resolved.CopyFrom(defaults)
    resolved.ClearField("max_output_tokens")  # depends on the prompt: gateway/prompt.py
    resolved.MergeFrom(options)
    most = options.max_output_tokens
    # A default gives way: the caller, who never named it, would be at fault for it.
    if most and resolved.min_output_tokens > most and not options.HasField("min_output_tokens"):
        resolved.min_output_tokens = most
    resolved.DiscardUnknownFields()
    return resolved


def check_output(options: generation_pb2.OutputOptions, violations: Violations) -> None:
    """Note in ``violations`` what is wrong with ``options``."""
    for descriptor, value in options.ListFields():
        if descriptor.name in ("logprobs", "prompt_logprobs") and not _LOGPROBS.holds(value):
            violations.add(f"output.{descriptor.name}", str(_LOGPROBS))


def resolved_output(options: generation_pb2.OutputOptions) -> generation_pb2.OutputOptions:
    """``options`` by themselves: as a part of the request they would keep all of it. As ``resolved_sampling``."""
    resolved = generation_pb2.OutputOptions()
    resolved.CopyFrom(options)
    resolved.DiscardUnknownFields()
    return resolved


def _check_output_tokens(options: generation_pb2.SamplingOptions, model: ServedModel, violations: Violations) -> None:
    allowed = _Range(1, model.max_output_tokens)
    if options.HasField("max_output_tokens") and not allowed.holds(options.max_output_tokens):
        violations.add("sampling.max_output_tokens", str(allowed))
    most = options.max_output_tokens if options.HasField("max_output_tokens") else model.max_output_tokens
    if options.HasField("min_output_tokens") and not 0 <= options.min_output_tokens <= most:
        violations.add("sampling.min_output_tokens", f"has to be 0 to max_output_tokens, {most}")


def _check_stops(options: generation_pb2.SamplingOptions, model: ServedModel, violations: Violations) -> None:
    if len(options.stop_strings) > _MAX_STOP_STRINGS:
        violations.add("sampling.stop_strings", f"has to hold at most {_MAX_STOP_STRINGS} strings")
    for index, stop in enumerate(options.stop_strings[:_MAX_STOP_STRINGS]):
        if not 1 <= len(stop) <= _MAX_STOP_STRING_CHARACTERS:
            violations.add(
                f"sampling.stop_strings[{index}]", f"has to be of 1 to {_MAX_STOP_STRING_CHARACTERS} characters"
            )
    if len(options.stop_token_ids) > _MAX_STOP_TOKEN_IDS:
        violations.add("sampling.stop_token_ids", f"has to hold at most {_MAX_STOP_TOKEN_IDS} ids")
    for index, token_id in enumerate(options.stop_token_ids[:_MAX_STOP_TOKEN_IDS]):
        if not 0 <= token_id < model.vocabulary_size:
            violations.add(f"sampling.stop_token_ids[{index}]", f"is not in the vocabulary of {model.vocabulary_size}")


def _check_logit_bias(options: generation_pb2.SamplingOptions, model: ServedModel, violations: Violations) -> None:
    if len(options.logit_bias) > _MAX_LOGIT_BIAS:
        violations.add("sampling.logit_bias", f"has to hold at most {_MAX_LOGIT_BIAS} entries")
        return
    for token_id, bias in sorted(options.logit_bias.items()):
        if not 0 <= token_id < model.vocabulary_size:
            violations.add(f"sampling.logit_bias[{token_id}]", f"is not in the vocabulary of {model.vocabulary_size}")
        if not _LOGIT_BIAS.holds(bias):
            violations.add(f"sampling.logit_bias[{token_id}]", str(_LOGIT_BIAS))
