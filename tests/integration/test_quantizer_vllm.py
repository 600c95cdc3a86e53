"""What the quantizer publishes, vLLM serves, and computes what the quantizer measured."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from quantizer.backends.autoawq import AutoAwqBackend
from quantizer.gate import Limits
from quantizer.pipeline import Job, run
from quantizer.progress import Silent
from quantizer.recipe import Recipe
from tests.fakes.dequantized_scores import loss
from tests.fakes.tiny_models import ARCHITECTURES, one_thread, write_tiny_held_out, write_tiny_model

_ROOT = Path(__file__).parent.parent.parent


@pytest.mark.vllm
def test_vllm_computes_what_was_measured_for_every_architecture(tmp_path: Path) -> None:
    """Perplexity through vLLM's kernels agrees within 1 % with that of the dequantized weights in float32."""
    directories = []
    for architecture in ARCHITECTURES:
        model = write_tiny_model(tmp_path / "models" / architecture, architecture)
        job = Job(
            model=model,
            out=tmp_path / architecture,
            recipe=Recipe(group_size=32, samples=4, length=64),
            limits=Limits(gap_ratio=100),
            held_out=write_tiny_held_out(tmp_path / "held_out.jsonl"),
        )
        with one_thread():
            run(job, AutoAwqBackend(), Silent())
        directories.append(job.out)
    rng = Random(0)
    prompts = [[rng.randrange(256) for _ in range(64)] for _ in range(8)]
    (tmp_path / "ids.json").write_text(json.dumps(prompts), encoding="utf-8")
    command = [sys.executable, "-m", "tests.fakes.vllm_scores", str(tmp_path / "ids.json"), *map(str, directories)]
    scored = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
    served = [json.loads(line)["nll"] for line in scored.stdout.splitlines() if line.startswith("{")]
    for directory, theirs in zip(directories, served, strict=True):
        assert math.log(1.01) > abs(loss(directory, prompts) - theirs), directory.name
