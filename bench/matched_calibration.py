"""Does calibration that matches the traffic pay? Writes the table of docs/quantizer.md.

    python -m bench.matched_calibration --model DIR --work DIR [--seeds 0 1 2] [--text FILE] [--held-out FILE]

Four calibrations of the same number of tokens, each with every seed, by the default backend:

    chat     the built-in chats, as they are asked: what the held-out chats resemble
    text     generic prose: FILE, or what CPython says of itself (pydoc_data.topics)
    mixed    half of the one, half of the other
    lengths  the same chats chained into conversations of twice a block's length, in half as many blocks

Each checkpoint is compared with its source on the held-out set, passage by passage. Mean KL is relative to "chat", with
a 95 % interval by resampling passages, both sides on the same ones; seeds are averaged within a passage. What is
finished stays in DIR, so that a run which was stopped goes on, and processes with seeds of their own can share the work
before one with all seeds prints the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from pydoc_data.topics import topics
from random import Random

from quantizer.backends.autoawq import AutoAwqBackend
from quantizer.calibration.documents import Document, Message, read_corpus
from quantizer.calibration.selection import select
from quantizer.calibration.tokens import tokenize
from quantizer.checkpoint import load_checkpoint, write_checkpoint
from quantizer.evaluation.comparison import PassageScore, Scores, compare, kl_ratio_interval
from quantizer.evaluation.held_out import HeldOut, prepare, read_held_out
from quantizer.evaluation.proof import rounded_to_nearest
from quantizer.pipeline import best_device
from quantizer.progress import Terminal
from quantizer.recipe import Recipe
from quantizer.source import Source, load_source
from quantizer.staging import open_staging

ARMS = ("chat", "text", "mixed", "lengths")
DomainScores = Mapping[str, Scores]


def calibration_file(arm: str, directory: Path, source: Source, recipe: Recipe, text: Path | None) -> Path:
    """What an arm is calibrated with."""
    chats = [document for document in read_corpus(None).documents if document.messages]
    prose = list(read_corpus(text).documents) if text else [Document(text=topic) for topic in topics.values()]
    rng = Random(recipe.seed)
    rng.shuffle(chats)
    rng.shuffle(prose)
    half = recipe.samples * recipe.length // 2
    match arm:
        case "chat":
            documents = chats
        case "text":
            documents = prose
        case "mixed":
            documents = [*first(chats, source, half), *first(prose, source, half)]
        case _:
            documents = chained(chats, source, recipe.length)
    path = directory / f"{arm}-{recipe.seed}.jsonl"
    lines = [
        {"messages": list(document.messages)} if document.messages else {"text": document.text}
        for document in documents
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def first(documents: Sequence[Document], source: Source, tokens: int) -> list[Document]:
    """As many documents as hold that many tokens; a text that is longer than what is left is cut."""
    chosen: list[Document] = []
    for document in documents:
        token_ids = tokenize(document, source.tokenizer).token_ids
        if document.text and len(token_ids) > tokens:
            chosen.append(Document(text=source.tokenizer.decode(token_ids[:tokens], skip_special_tokens=True)))
        elif len(token_ids) <= tokens:
            chosen.append(document)
        tokens -= min(len(token_ids), tokens)
        if not tokens:
            break
    return chosen


def chained(chats: Sequence[Document], source: Source, length: int) -> list[Document]:
    """Conversations of almost ``length`` tokens, made of chats one after the other."""
    chains: list[tuple[Message, ...]] = [()]
    for chat in chats:
        turns = tuple(message for message in chat.messages if message["role"] != "system")
        longer = Document(messages=(*chains[-1], *turns))
        if len(tokenize(longer, source.tokenizer).token_ids) > length:
            chains.append(turns)
        else:
            chains[-1] = longer.messages
    return [Document(messages=chain) for chain in chains if chain]


def score(  # noqa: PLR0913, PLR0917 - a program's whole state
    source: Source, held_out: HeldOut, arm: str, recipe: Recipe, directory: Path, text: Path | None, progress: Terminal
) -> DomainScores:
    """Quantize with one calibration and compare with the source."""
    out = directory / f"{arm}-{recipe.seed}"
    result = directory / f"{out.name}.json"
    if not result.exists():
        if arm == "lengths":
            recipe = replace(recipe, samples=recipe.samples // 2, length=recipe.length * 2)
        file = calibration_file(arm, directory, source, recipe, text)
        blocks = select(file, source.tokenizer, recipe).blocks
        with open_staging(out) as staging:
            staging.claim(f"{blocks.digest()} {recipe}")
            quantized = AutoAwqBackend().quantize(source, recipe, blocks, staging, progress)
            write_checkpoint(staging.start_checkpoint(), source.directory, source.config, quantized)
            model = load_checkpoint(staging.checkpoint, device=source.model.device)
            found = {
                domain: compare(source.model, {"": model}, passages)[""]
                for domain, passages in held_out.passages.items()
            }
            scores = {domain: [asdict(passage) for passage in scores.passages] for domain, scores in found.items()}
            result.write_text(json.dumps({"tokens": blocks.tokens(), "scores": scores}), encoding="utf-8")
            staging.discard()
    content = json.loads(result.read_bytes())["scores"]
    return {domain: Scores(tuple(PassageScore(**one) for one in passages)) for domain, passages in content.items()}


def averaged(seeds: Sequence[Scores]) -> Scores:
    """One score for each passage, over all seeds."""
    count = len(seeds)
    return Scores(
        tuple(
            replace(same[0], nll=sum(one.nll for one in same) / count, kl=sum(one.kl for one in same) / count)
            for same in zip(*(scores.passages for scores in seeds), strict=True)
        )
    )


def table(by_arm: Mapping[str, Sequence[DomainScores]], baseline: DomainScores) -> str:
    """Markdown."""
    lines = ["| held-out | calibration | perplexity | mean KL | relative to chat (95 %) | each seed |"]
    lines.append("|---|---|---|---|---|---|")
    for domain, rtn in baseline.items():
        lines.append(f"| {domain} | none (rounded to nearest) | {rtn.perplexity:.3f} | {rtn.kl:.4f} | | |")
        matched = [seed[domain] for seed in by_arm["chat"]]
        for arm, seeds in by_arm.items():
            scores = [seed[domain] for seed in seeds]
            mean = averaged(scores)
            low, high = kl_ratio_interval(mean, averaged(matched), Random(0))
            ratio = "1" if arm == "chat" else f"{mean.kl / averaged(matched).kl:.3f} ({low:.3f} to {high:.3f})"
            each = " ".join(f"{one.kl / other.kl:.3f}" for one, other in zip(scores, matched, strict=True))
            lines.append(f"| {domain} | {arm} | {mean.perplexity:.3f} | {mean.kl:.4f} | {ratio} | {each} |")
    return "\n".join(lines)


def main() -> None:
    """Quantize, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--held-out", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    progress = Terminal()
    source = load_source(options.model, device=best_device())
    held_out = prepare(read_held_out(options.held_out), source.model, source.tokenizer)
    rtn = rounded_to_nearest(source.model, options.group_size)
    baseline = {
        domain: compare(source.model, {"": rtn}, passages)[""] for domain, passages in held_out.passages.items()
    }
    recipe = Recipe(group_size=options.group_size, samples=options.samples, length=options.length)
    by_arm: dict[str, list[DomainScores]] = {arm: [] for arm in ARMS}
    for done, seed in enumerate(options.seeds, start=1):
        for arm in ARMS:
            one = replace(recipe, seed=seed)
            by_arm[arm].append(score(source, held_out, arm, one, options.work, options.text, progress))
        print(f"after {done} of {len(options.seeds)} seeds:\n{table(by_arm, baseline)}\n", flush=True)


if __name__ == "__main__":
    main()
