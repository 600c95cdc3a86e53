"""What a worker says of its rendering, and what a gateway makes of it: two mappings, written apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from gateway.canary import diverging_canary
from gateway.renderer import Renderer
from tests.fakes.template_families import FAMILIES, Family, family_tokenizer
from worker.canary_reference import render_canaries


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_workers_canaries_do_not_diverge(family: Family, tmp_path: Path) -> None:
    """From a checkpoint directory as transformers saves it, on any day."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=family_tokenizer(family.name), chat_template=family.template, **family.named
    )
    tokenizer.save_pretrained(tmp_path)
    names = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")
    tokenizer_json, template, config = ((tmp_path / name).read_bytes() for name in names)
    canaries = render_canaries(tmp_path)
    assert len(canaries) >= 7
    assert diverging_canary(Renderer.from_files(tokenizer_json, template.decode(), config), canaries) is None


_CHATML = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{% if %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"])
def test_a_template_that_renders_nothing_leaves_no_canary(template: str, tmp_path: Path) -> None:
    """Whatever it raises: the worker starts all the same, and serves text."""
    PreTrainedTokenizerFast(tokenizer_object=family_tokenizer("chatml"), chat_template=template).save_pretrained(
        tmp_path
    )
    assert () == render_canaries(tmp_path)


def test_of_several_templates_the_default_one_is_rendered(tmp_path: Path) -> None:
    """It is the one that a gateway is given; asked for tools, transformers would take the one named so."""
    templates = {"default": _CHATML, "tool_use": "tools: {{ tools }}"}
    PreTrainedTokenizerFast(tokenizer_object=family_tokenizer("chatml"), chat_template=templates).save_pretrained(
        tmp_path
    )
    canaries = {canary.name: canary.rendered_prompt for canary in render_canaries(tmp_path)}
    assert canaries["user"].startswith("<user>What is")
    assert "tools" not in canaries
