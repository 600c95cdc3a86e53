"""llm-compressor, in its own environment, behind the same gate."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantizer.backends.llm_compressor import _OWN_VERSIONS, LlmCompressorBackend
from quantizer.errors import BackendError
from quantizer.gate import Limits
from quantizer.pipeline import Job, run, verify
from quantizer.progress import Silent
from quantizer.recipe import Recipe
from tests.fakes.tiny_models import one_thread, write_tiny_held_out, write_tiny_model


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """For the models' size."""
    with one_thread():
        yield


_LIMITS = Limits(gap_ratio=100)


def _job(directory: Path) -> Job:
    return Job(
        model=write_tiny_model(directory / "model"),
        out=directory / "out",
        recipe=Recipe(backend="llm-compressor", group_size=32, samples=4, length=64),
        limits=_LIMITS,
        held_out=write_tiny_held_out(directory / "held_out.jsonl"),
    )


@pytest.mark.vllm  # for its price: minutes, most of them to install and import
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, of what it imports to decompress weights
def test_its_checkpoint_passes_the_same_gate(tmp_path: Path) -> None:
    """The environment is made on first use, and `verify` reads what came out as it reads AutoAWQ's."""
    home = Path(os.environ.get("TIDEGATE_HOME") or ".tidegate").absolute()
    job = _job(tmp_path)
    manifest = run(job, LlmCompressorBackend(home / "llm-compressor"), Silent())
    assert "0.14.0.1" == manifest["versions"]["llmcompressor"]
    assert () == tuple(verify(job.model, job.out, _LIMITS, Silent(), job.held_out).reasons)


def test_its_last_words_are_told_when_it_fails(tmp_path: Path) -> None:
    """A process that ends badly is a refusal with what it wrote, and nothing is published."""
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'no such model' >&2\nexit 3\n", encoding="utf-8")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    pins = "\n".join(f"{name}=={version}" for name, version in _OWN_VERSIONS.items())
    (tmp_path / "environment" / "installed.txt").write_text(pins, encoding="utf-8")
    job = _job(tmp_path)
    with pytest.raises(BackendError, match="llm-compressor failed:\nno such model"):
        run(job, LlmCompressorBackend(tmp_path / "environment"), Silent())
    assert not job.out.exists()
