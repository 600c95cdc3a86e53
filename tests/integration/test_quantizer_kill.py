"""``kill -9`` at any point: nothing half-written is ever visible, and a rerun ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from quantizer import manifest
from quantizer.gate import Limits
from quantizer.pipeline import Job
from quantizer.recipe import Recipe
from tests.fakes.patience import PATIENCE_S
from tests.fakes.quantizer_process import start_quantizer
from tests.fakes.tiny_models import write_tiny_model

# The goal is 20; the default keeps a run of all tests short.
_POINTS = int(os.environ.get("TIDEGATE_TEST_KILLS", "8"))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run of about a second."""
    directory = tmp_path_factory.mktemp("kill")
    held_out = directory / "held_out.jsonl"
    chat = {"messages": [{"role": "user", "content": "How are you?"}]}
    text = {"text": "A few words are enough where only the bits are compared. " * 4}
    held_out.write_text("\n".join(map(json.dumps, [chat, text])), encoding="utf-8")
    return Job(
        model=write_tiny_model(directory / "model"),
        out=directory / "undisturbed",
        recipe=Recipe(group_size=32, samples=4, length=64),
        limits=Limits(kl_ratio=100, gap_ratio=100, layer_ratio=100),
        held_out=held_out,
    )


@pytest.fixture(scope="module")
def undisturbed(job: Job) -> tuple[dict[str, bytes], float]:
    """The checkpoint of a run that nobody killed, and how many seconds it took."""
    _finish(job)  # the first one also starts the fork server
    started = time.monotonic()
    _finish(replace(job, out=job.out.with_name("timed")))
    return _content(job.out), time.monotonic() - started


def _finish(job: Job) -> None:
    process = start_quantizer(job)
    process.join(PATIENCE_S)
    assert 0 == process.exitcode


def _content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name not in manifest.REPORT_FILES}


@pytest.mark.parametrize("share", [Random(seed).random() for seed in range(_POINTS)])
def test_a_killed_run_is_finished_bit_for_bit(
    share: float, job: Job, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    """Killed after some share of its time, the run leaves nothing or everything, and the next one completes it."""
    expected, seconds = undisturbed
    disturbed = replace(job, out=tmp_path / "out")
    process = start_quantizer(disturbed)
    process.join(share * seconds)
    process.kill()
    process.join(PATIENCE_S)
    if disturbed.out.exists():
        assert expected == _content(disturbed.out)
    _finish(disturbed)
    assert expected == _content(disturbed.out)
    assert [disturbed.out] == list(tmp_path.iterdir())
