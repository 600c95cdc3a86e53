"""Models as the gateway serves them, with a small real tokenizer."""

from __future__ import annotations

import functools
from typing import Any

from gateway.model import ServedModel
from gateway.renderer import Renderer
from tests.fakes.template_families import FAMILIES, family_tokenizer
from tidegate.inference.v1 import generation_pb2, model_pb2


@functools.cache
def family_renderer(name: str) -> Renderer:
    """The renderer of a family of tests/fakes/template_families.py."""
    family = FAMILIES[name]
    return Renderer.from_files(family_tokenizer(name).to_str().encode(), family.template, family.config)


def served_model(family: str = "chatml", **changes: Any) -> ServedModel:
    """A model of 512 tokens context on workers of 448 tokens, that does everything but repeat its sampling."""
    values: dict[str, Any] = {
        "name": "m",
        "checkpoint_sha256": "c",
        "tokenizer_sha256": "t",
        "chat_template_sha256": "j",
        "context_length": 512,
        "max_output_tokens": 256,
        "default_max_output_tokens": 64,
        "vocabulary_size": family_tokenizer(family).get_vocab_size(),
        "kv_pool_tokens": 448,
        "block_size": 16,
        "supports_seed": False,
        "constraint_kinds": frozenset(model_pb2.ConstraintKind.values()) - {model_pb2.CONSTRAINT_KIND_GRAMMAR},
        "sampling_defaults": generation_pb2.SamplingOptions(temperature=0.5, stop_token_ids=[3]),
        "renderer": family_renderer(family),
    }
    return ServedModel(**(values | changes))
