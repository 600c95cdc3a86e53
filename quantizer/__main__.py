"""The quantizer's commands: ``python -m quantizer run`` and ``python -m quantizer verify``."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quantizer.errors import QuantizerError

_app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_console = Console(stderr=True)


class BackendName(StrEnum):
    """Which library quantizes."""

    AUTOAWQ = "autoawq"
    LLM_COMPRESSOR = "llm-compressor"


_Model = Annotated[Path, typer.Option(help="Directory of the dense model.", exists=True, file_okay=False)]
_HeldOut = Annotated[Path | None, typer.Option(help="Texts and chats to judge by, instead of the built-in ones.")]
_KlRatio = Annotated[float, typer.Option(help="Mean KL may be at most this much of round-to-nearest's.")]
_GapRatio = Annotated[float, typer.Option(help="The perplexity gap may be at most this much of round-to-nearest's.")]
_LayerRatio = Annotated[float, typer.Option(help="A layer's error may be at most this much of round-to-nearest's.")]
_MaxKl = Annotated[float | None, typer.Option(help="Mean KL may be at most this, in nats a token.")]
_MinTop1 = Annotated[float | None, typer.Option(help="At least this share of tokens must stay the likeliest one.")]


@_app.command()
def run(  # noqa: PLR0913, PLR0917 - a command line is an argument list
    model: _Model,
    out: Annotated[Path, typer.Option(help="Directory of the checkpoint; it must not exist.")],
    calibration: Annotated[
        Path | None, typer.Option(help="Chats or texts (.jsonl), plain text, or a traffic sketch (.json).")
    ] = None,
    held_out: _HeldOut = None,
    backend: Annotated[
        BackendName, typer.Option(help="llm-compressor is installed into an environment of its own on first use.")
    ] = BackendName.AUTOAWQ,
    revision: Annotated[str | None, typer.Option(help="Your name for the source's version, for the manifest.")] = None,
    group_size: Annotated[int, typer.Option(help="Weights that share a scale: 32, 64 or 128.")] = 64,
    samples: Annotated[int, typer.Option(help="Calibration blocks.")] = 32,
    length: Annotated[int, typer.Option(help="Tokens in a calibration block.")] = 256,
    seed: Annotated[int, typer.Option(help="Decides which documents are drawn.")] = 0,
    kl_ratio: _KlRatio = 0.9,
    gap_ratio: _GapRatio = 0.95,
    layer_ratio: _LayerRatio = 1.25,
    max_kl: _MaxKl = None,
    min_top1: _MinTop1 = None,
) -> None:
    """Quantize a model to 4 bits with AWQ, prove the result against its source, and publish it."""
    _quieten_libraries()
    # Torch and transformers take seconds to import; --help and a mistyped option should not.
    from safetensors import SafetensorError  # noqa: PLC0415 - with the others

    from quantizer.backends.autoawq import AutoAwqBackend  # noqa: PLC0415
    from quantizer.backends.llm_compressor import LlmCompressorBackend  # noqa: PLC0415
    from quantizer.gate import Limits  # noqa: PLC0415
    from quantizer.pipeline import Job  # noqa: PLC0415
    from quantizer.pipeline import run as run_pipeline  # noqa: PLC0415
    from quantizer.progress import Terminal  # noqa: PLC0415
    from quantizer.recipe import Recipe  # noqa: PLC0415
    from quantizer.report import read_answers  # noqa: PLC0415

    try:
        job = Job(
            model=model,
            out=out.absolute(),
            recipe=Recipe(backend=backend, group_size=group_size, samples=samples, length=length, seed=seed),
            limits=Limits(
                kl_ratio=kl_ratio, gap_ratio=gap_ratio, layer_ratio=layer_ratio, max_kl=max_kl, min_top1=min_top1
            ),
            calibration=calibration,
            held_out=held_out,
            revision=revision,
        )
        is_default = backend is BackendName.AUTOAWQ
        chosen = AutoAwqBackend() if is_default else LlmCompressorBackend(_state_dir() / "llm-compressor")
        manifest = run_pipeline(job, chosen, Terminal())
    except SafetensorError as error:  # of a disk that is full it names no file
        _refuse(f"cannot write {out}: {error}")
    except (QuantizerError, OSError) as error:
        _refuse(error)
    _show(manifest["figures"])
    _show_answers(read_answers(out))
    words = f"published {out}, checkpoint {manifest['checkpoint_sha256'][:12]}; see report.html there"
    _console.print(words, markup=False)


@_app.command()
def verify(  # noqa: PLR0913, PLR0917 - as run
    model: _Model,
    checkpoint: Annotated[Path, typer.Option(help="Directory of the checkpoint.", exists=True, file_okay=False)],
    held_out: _HeldOut = None,
    kl_ratio: _KlRatio = 0.9,
    gap_ratio: _GapRatio = 0.95,
    layer_ratio: _LayerRatio = 1.25,
    max_kl: _MaxKl = None,
    min_top1: _MinTop1 = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the verdict to standard output as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Judge a quantized checkpoint, from whatever tool, against its source. Exit code 0 if it is good, 1 if not."""
    _quieten_libraries()
    from quantizer.gate import Limits  # noqa: PLC0415 - as in run
    from quantizer.pipeline import verify as verify_pipeline  # noqa: PLC0415
    from quantizer.progress import Terminal  # noqa: PLC0415

    limits = Limits(kl_ratio=kl_ratio, gap_ratio=gap_ratio, layer_ratio=layer_ratio, max_kl=max_kl, min_top1=min_top1)
    try:
        verdict = verify_pipeline(model, checkpoint, limits, Terminal(), held_out)
    except (QuantizerError, OSError) as error:
        _refuse(error)
    if as_json:
        typer.echo(json.dumps(verdict.to_json()))
    elif verdict.figures:
        _show(verdict.figures.to_json())
        _show_answers([asdict(answer) for answer in verdict.answers])
    for reason in verdict.reasons:
        _console.print(f"refused: {reason}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if verdict.reasons else 0)


def _show(figures: dict[str, dict[str, dict[str, float]]]) -> None:
    table = Table("held-out", "", "perplexity", "mean KL", "top-1")
    for name, domain in figures["domains"].items():
        table.add_row(name, "source", f"{domain['source_perplexity']:.3f}", "", "")
        for label, prefix in (("rounded to nearest", "rtn_"), ("checkpoint", "")):
            values = [domain[f"{prefix}{figure}"] for figure in ("perplexity", "kl", "top1")]
            table.add_row("", label, f"{values[0]:.3f}", f"{values[1]:.4f}", f"{values[2]:.3f}")
    _console.print(table)


def _show_answers(answers: Sequence[Mapping[str, Any]]) -> None:
    table = Table("prompt", "source", "checkpoint", title="greedy answers", show_lines=True)
    for answer in answers:
        table.add_row(*(escape(answer[column]) for column in ("prompt", "source", "checkpoint")))
    _console.print(table)
    lost = sum(answer["is_lost"] for answer in answers)
    if lost:
        words = f"{lost} of {len(answers)} answers repeat the same words over and over, where the source's do not"
        _console.print(words, style="yellow", highlight=False)


def _refuse(error: Exception | str) -> None:
    # No markup: paths and templates may hold [/INST].
    _console.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1)


def _state_dir() -> Path:
    """Where environments are kept: TIDEGATE_HOME, or ``.tidegate`` in the working directory."""
    return Path(os.environ.get("TIDEGATE_HOME") or ".tidegate").absolute()


def _quieten_libraries() -> None:
    """No look-ups in the network, and no progress bars beside ours."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415 - seconds

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


if __name__ == "__main__":
    _app()
