"""Rendering and token ids of the real default model against the reference, transformers.

The model is prepared where `make demo` prepares it: half a minute, once.
"""

from __future__ import annotations

import functools
import os
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from transformers import AutoTokenizer

from gateway.canary import diverging_canary
from gateway.chat_prompt import parse_chat
from gateway.renderer import Renderer
from gateway.violations import Violations
from tests.fakes.conversations import conversations, texts
from tests.fakes.reference_rendering import reference_rendering
from tests.fakes.template_families import FAMILIES
from tidegate.client.stack import state_dir
from tidegate.inference.v1 import chat_pb2
from worker.canaries import read_canaries
from worker.default_model import prepare_default_model

pytestmark = pytest.mark.vllm

_SETTINGS = settings(
    max_examples=500 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
_NOW = datetime(2026, 2, 28)  # noqa: DTZ001 - as transformers has it
_MARKS = ("<|", "|>", "<repo", "<empty_output", "im_end", "<jupyter")


@functools.cache
def _model_dir() -> Path:
    directory = state_dir() / "models" / "smollm2-135m-instruct"
    prepare_default_model(directory)
    return directory


@functools.cache
def _renderer() -> Renderer:
    names = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")
    tokenizer, template, config = ((_model_dir() / name).read_bytes() for name in names)
    return Renderer.from_files(tokenizer, template.decode(), config, clock=lambda: _NOW)


def test_the_canaries_of_the_checkpoint_do_not_diverge() -> None:
    """The gateway takes the default model's worker into service."""
    assert diverging_canary(_renderer(), read_canaries(_model_dir() / "canaries.json")) is None


def test_text_and_ids_equal_those_of_transformers() -> None:
    """With the real vocabulary of 49,152 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(_model_dir(), local_files_only=True, trust_remote_code=False)
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    text = texts(_MARKS).filter(lambda text: not any(token in text for token in special))

    @_SETTINGS
    @given(prompt=conversations(FAMILIES["smollm2"], text, text))
    def check(prompt: chat_pb2.ChatPrompt) -> None:
        violations = Violations()
        actual = _renderer().prompt(parse_chat(prompt, violations))
        violations.raise_if_any()
        assert reference_rendering(tokenizer, prompt, now=_NOW) == (actual.rendered_prompt, list(actual.token_ids))

    check()
