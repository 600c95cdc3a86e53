"""Measure a checkpoint that stands on disk against its source and against rounding to nearest."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from torch import nn

from quantizer import awq_format
from quantizer.calibration.documents import Document
from quantizer.checkpoint import group_size, load_checkpoint
from quantizer.errors import CheckpointError
from quantizer.evaluation.answers import greedy_answers, is_loop
from quantizer.evaluation.comparison import Scores, compare, gap_ratio_interval, kl_ratio_interval
from quantizer.evaluation.held_out import ANSWER_TOKENS, prepare
from quantizer.evaluation.reconstruction import layer_errors
from quantizer.gate import DomainFigures, Figures
from quantizer.manifest import differences as manifest_differences
from quantizer.manifest import read_manifest, tokenizer_digests
from quantizer.progress import Progress
from quantizer.source import Source, check_model, read_config, rotary_base

_SHOWN_ANSWERS = 5
_LAYER_PASSAGES = 4  # of each domain, for the error of single layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A prompt and what source and checkpoint say to it, greedily."""

    prompt: str
    source: str
    checkpoint: str
    is_lost: bool  # the checkpoint says the same words over and over, where the source does not


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Figures for the gate, and answers for people."""

    figures: Figures
    answers: Sequence[Answer]


def inspect(source: Source, directory: Path) -> list[str]:
    """What is wrong with a checkpoint before its model is looked at: files, tokenizer, template, config.

    Raises ``CheckpointError`` or ``SourceError`` if the manifest or config.json cannot be read.
    """
    manifest = read_manifest(directory)
    problems = manifest_differences(directory, manifest) if manifest else []
    ours, theirs = tokenizer_digests(directory), tokenizer_digests(source.directory)
    if ours["tokenizer_sha256"] != theirs["tokenizer_sha256"]:
        problems.append("tokenizer.json is not the source's: the model would be fed other tokens than it learned")
    if ours["chat_template_sha256"] != theirs["chat_template_sha256"]:
        problems.append("the chat template is not the source's")
    config = read_config(directory)
    if (base := rotary_base(config)) != (expected := rotary_base(source.config)):
        problems.append(f"the rotary base is {base}; the source's is {expected}")
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "model_type"):
        if config.get(key) != source.config.get(key):
            problems.append(f"config.json: {key} is {config.get(key)}; the source's is {source.config.get(key)}")
    return problems


def prove(source: Source, directory: Path, documents: Sequence[Document], progress: Progress) -> Proof:
    """Reload the checkpoint and measure. Raises ``CheckpointError`` if it cannot be loaded as the source's twin."""
    checkpoint = load_checkpoint(directory, device=source.model.device)
    problems = check_model(checkpoint, read_config(directory), source.tokenizer)
    if problems:
        raise CheckpointError(f"{directory}: " + "; ".join(problems))
    models = {"rtn": rounded_to_nearest(source.model, group_size(read_config(directory))), "checkpoint": checkpoint}
    with progress.stage("answers of the source"):
        held_out = prepare(documents, source.model, source.tokenizer)
    domains = {}
    for name, passages in held_out.passages.items():
        with progress.stage(f"comparing on {name}", total=len(passages)) as advance:
            domains[name] = _domain_figures(compare(source.model, models, passages, advance))
    sample = [passage for passages in held_out.passages.values() for passage in passages[:_LAYER_PASSAGES]]
    with progress.stage("error of each layer", total=len(sample)) as advance:
        errors = layer_errors(source.model, models, sample, advance)
    with progress.stage("answers of the checkpoint"):
        prompts = held_out.prompt_ids[:_SHOWN_ANSWERS]
        replies = greedy_answers(checkpoint, source.tokenizer, prompts, max_tokens=ANSWER_TOKENS)
    answers = [
        Answer(
            prompt=document.messages[-1]["content"],
            source=_text(source, ours),
            checkpoint=_text(source, theirs),
            is_lost=is_loop(theirs) and not is_loop(ours),
        )
        for document, ours, theirs in zip(held_out.prompts, held_out.answers, replies, strict=False)
    ]
    figures = Figures(domains=domains, layer_errors=errors["checkpoint"], rtn_layer_errors=errors["rtn"])
    return Proof(figures=figures, answers=answers)


def rounded_to_nearest(model: Any, size: int) -> Any:
    """A copy of the model with the linear layers of its decoder rounded to nearest, uncalibrated."""
    copied = copy.deepcopy(model)
    for linear in copied.base_model.layers.modules():
        if isinstance(linear, nn.Linear):
            linear.weight.data = awq_format.round_to_nearest(linear.weight.data, size).dequantize()
    return copied


def _domain_figures(scores: dict[str, Scores]) -> DomainFigures:
    source, rtn, checkpoint = scores["source"], scores["rtn"], scores["checkpoint"]
    return DomainFigures(
        tokens=source.tokens,
        source_perplexity=source.perplexity,
        rtn_perplexity=rtn.perplexity,
        perplexity=checkpoint.perplexity,
        rtn_kl=rtn.kl,
        kl=checkpoint.kl,
        kl_p99=checkpoint.kl_p99,
        rtn_top1=rtn.top1,
        top1=checkpoint.top1,
        kl_ratio_interval=kl_ratio_interval(checkpoint, rtn, Random(0)),
        gap_ratio_interval=gap_ratio_interval(checkpoint, rtn, source, Random(0)),
    )


def _text(source: Source, token_ids: Sequence[int]) -> str:
    return str(source.tokenizer.decode(token_ids, skip_special_tokens=True)).strip()
