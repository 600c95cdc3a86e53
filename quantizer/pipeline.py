"""The two commands, stage by stage: ``run`` makes a checkpoint and publishes it, ``verify`` judges one that exists."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantizer import manifest, report
from quantizer.backends.backend import Backend
from quantizer.calibration.documents import Document
from quantizer.calibration.selection import Calibration, select
from quantizer.checkpoint import companions, write_checkpoint
from quantizer.errors import CheckpointError, GateRefusedError, SourceError, TargetError
from quantizer.evaluation.held_out import read_held_out
from quantizer.evaluation.proof import Answer, Proof, inspect, prove
from quantizer.gate import Figures, Limits, findings
from quantizer.progress import Progress
from quantizer.recipe import Recipe
from quantizer.source import Source, load_source
from quantizer.staging import Staging, open_staging

_LIBRARIES = ("torch", "transformers", "safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What ``run`` is asked for. ``revision`` is the caller's name for the version of the source, if it has one."""

    model: Path
    out: Path
    recipe: Recipe
    limits: Limits
    calibration: Path | None = None
    held_out: Path | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement on a checkpoint: published or publishable if there are no ``reasons`` against it."""

    reasons: Sequence[str]
    figures: Figures | None = None
    answers: Sequence[Answer] = ()

    def to_json(self) -> dict[str, Any]:
        """For ``verify --json``."""
        return {
            "passed": not self.reasons,
            "reasons": list(self.reasons),
            "figures": self.figures.to_json() if self.figures else None,
        }


def run(job: Job, backend: Backend, progress: Progress) -> dict[str, Any]:
    """Quantize, prove, publish; returns the manifest. A run that was killed goes on where it was.

    Raises ``QuantizerError``; a refused checkpoint stays in the staging directory with its report.
    """
    job.out.parent.mkdir(parents=True, exist_ok=True)
    with open_staging(job.out) as staging:
        with progress.stage("loading the source"):
            source = load_source(job.model, device=best_device())
        backend.check(source, job.recipe)
        held_out = read_held_out(job.held_out)
        calibration = select(
            job.calibration, source.tokenizer, job.recipe, held_out={document.normalized() for document in held_out}
        )
        identity = _identity(job, source, calibration, backend)
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        published = _published(job, key, held_out)
        if published:
            staging.discard()
            return published
        staging.claim(key)
        quantized = backend.quantize(source, job.recipe, calibration.blocks, staging, progress)
        with progress.stage("writing the checkpoint"):
            directory = staging.start_checkpoint()
            write_checkpoint(directory, source.directory, source.config, quantized)
        return _prove_and_publish(job, source, identity | {"key": key}, held_out, staging, progress)


def verify(model: Path, checkpoint: Path, limits: Limits, progress: Progress, held_out: Path | None = None) -> Verdict:
    """Judge any checkpoint, from any tool, by the gate that ``run`` publishes through.

    Raises ``SourceError`` if it is the source that cannot be used.
    """
    with progress.stage("loading the source"):
        source = load_source(model, device=best_device())
    try:
        problems = inspect(source, checkpoint)
        if problems:
            return Verdict(reasons=problems)
        proof = prove(source, checkpoint, read_held_out(held_out), progress)
    except (CheckpointError, SourceError) as error:
        return Verdict(reasons=[str(error)])
    return Verdict(reasons=findings(proof.figures, limits), figures=proof.figures, answers=proof.answers)


def best_device() -> str:
    """AutoAWQ moves layers to the GPU whenever there is one, so nothing else can be chosen."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _prove_and_publish(  # noqa: PLR0913, PLR0917 - the whole state of a run, at its end
    job: Job,
    source: Source,
    identity: dict[str, Any],
    held_out: Sequence[Document],
    staging: Staging,
    progress: Progress,
) -> dict[str, Any]:
    problems = inspect(source, staging.checkpoint)
    if problems:
        raise GateRefusedError(problems)
    proof = prove(source, staging.checkpoint, held_out, progress)
    reasons = findings(proof.figures, job.limits)
    judgement = _judgement(proof, job.limits, reasons) | {"held_out": _held_out_digest(held_out)}
    content = manifest.describe(staging.checkpoint) | identity | judgement
    report.write(staging.checkpoint, content, proof.answers, progress.seconds)
    if reasons:
        raise GateRefusedError([*reasons, f"the refused checkpoint and its report are in {staging.checkpoint}"])
    text = json.dumps(content, indent=1, sort_keys=True)
    (staging.checkpoint / manifest.FILE_NAME).write_text(text + "\n", encoding="utf-8")
    staging.publish()
    return content


def _identity(job: Job, source: Source, calibration: Calibration, backend: Backend) -> dict[str, Any]:
    """Everything that decides the bits: two runs with the same identity write the same checkpoint."""
    return {
        "source": {
            "name": source.directory.resolve().name,
            "revision": job.revision,
            "sha256": manifest.source_digest(source.directory),
        },
        "recipe": job.recipe.to_json(),
        "calibration": calibration.to_json(),
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES} | backend.versions(),
        "machine": {"device": best_device(), "threads": torch.get_num_threads()},
    }


def _judgement(proof: Proof, limits: Limits, reasons: Sequence[str]) -> dict[str, Any]:
    return {
        "figures": proof.figures.to_json(),
        "gate": {"passed": not reasons, "reasons": list(reasons), "limits": limits.to_json()},
    }


def _held_out_digest(documents: Sequence[Document]) -> str:
    return hashlib.sha256("\0".join(document.normalized() for document in documents).encode()).hexdigest()


def _published(job: Job, key: str, held_out: Sequence[Document]) -> dict[str, Any] | None:
    """The manifest of what stands at ``job.out`` if it is what this run would make.

    Raises ``TargetError`` otherwise, and ``GateRefusedError`` if it is, but misses the limits of this run.
    """
    out = job.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    found = manifest.read_manifest(out) if out.is_dir() else None
    if not found or found.get("key") != key:
        raise TargetError(f"{out} exists and is something else: choose another --out, or remove it")
    damage = manifest.differences(out, found)
    if damage:
        raise CheckpointError(f"{out}: " + "; ".join(damage))
    changed = manifest.unlike(companions(job.model), found)  # such as how to sample, which decides none of the weights
    if changed:
        raise TargetError(f"{out} holds what {job.model} had before in {', '.join(changed)}: remove it, and run again")
    # Neither is part of the key: they decide whether, and not what, is published.
    judged_by = _held_out_digest(held_out)
    if found.get("held_out", judged_by) != judged_by:  # an older manifest does not say
        raise TargetError(f"{out} was published by another held-out set: `verify` judges it by this one")
    if reasons := findings(Figures.from_json(found["figures"]), job.limits):
        raise GateRefusedError([*reasons, f"{out} stands as it was published, by other limits"])
    return found
