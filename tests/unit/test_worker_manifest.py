from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import worker
from quantizer.calibration.histogram import Histogram
from quantizer.manifest import FILE_NAME, describe
from worker.checkpoint import CheckpointError, open_checkpoint

_CALIBRATION = Histogram.of([(40, 1), (600, 3), (600, 3)])


def _write_manifest(directory: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    content = describe(directory) | {"calibration": {"histogram": _CALIBRATION.to_json()}}
    change(content)
    (directory / FILE_NAME).write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small checkpoint as the quantizer publishes it."""
    directory = Path(shutil.copytree(Path(worker.__file__).parent / "sim_model", tmp_path / "model"))
    save_file({"a": torch.arange(64.0), "b": torch.ones(8)}, directory / "model.safetensors")
    _write_manifest(directory)
    return directory


def _flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_as_it_was_published_is_served(checkpoint: Path) -> None:
    """Its digest is the one that the quantizer wrote down, and its calibration is known."""
    opened = open_checkpoint(checkpoint)
    assert describe(checkpoint)["checkpoint_sha256"] == opened.checkpoint_sha256
    assert opened.calibration is not None
    assert _CALIBRATION.to_json()["counts"] == [list(row) for row in opened.calibration.counts]


def test_without_a_manifest_it_is_served_unmeasured(checkpoint: Path) -> None:
    """Checkpoints of other tools have none."""
    (checkpoint / FILE_NAME).unlink()
    assert open_checkpoint(checkpoint).calibration is None


def test_a_flipped_bit_is_refused_by_file_and_tensor(checkpoint: Path) -> None:
    """The engine would load it without a word."""
    _flip_last_bit(checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors has another SHA-256 \(changed: [ab]\)"):
        open_checkpoint(checkpoint)


def test_a_cut_shard_is_refused_by_name(checkpoint: Path) -> None:
    """Before anything is hashed."""
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: \d+ bytes long, not \d+"):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"])
def test_another_models_file_is_refused_by_name(checkpoint: Path, name: str) -> None:
    """A swapped tokenizer feeds the model other tokens than it learned."""
    path = checkpoint / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(CheckpointError, match=rf"{name} is \d+ bytes long, not \d+"):
        open_checkpoint(checkpoint)


def test_a_file_of_the_same_length_is_refused_too(checkpoint: Path) -> None:
    """By its digest."""
    path = checkpoint / "chat_template.jinja"
    path.write_bytes(path.read_bytes().swapcase())
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja has another SHA-256"):
        open_checkpoint(checkpoint)


def test_a_missing_file_is_refused_by_name(checkpoint: Path) -> None:
    """Here the tokenizer's settings, which a tokenizer can be loaded without."""
    (checkpoint / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is missing"):
        open_checkpoint(checkpoint)


def test_weights_that_nobody_measured_are_refused(checkpoint: Path) -> None:
    """An engine loads every safetensors file that it finds."""
    save_file({"c": torch.ones(1)}, checkpoint / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors does not belong to it"):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(format="tidegate.manifest/9"),
        lambda content: content.pop("files"),
        lambda content: content.update(calibration=7),
        lambda content: content["calibration"]["histogram"]["counts"].pop(),
        lambda content: content.update(tensors=[1]),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    checkpoint: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Rather than ignored: nobody could say what it would have found."""
    _write_manifest(checkpoint, change)
    with pytest.raises(CheckpointError, match=FILE_NAME):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize(("name", "content"), [("chat_template.jinja", "other"), ("generation_config.json", "{}")])
def test_what_would_change_the_answers_and_was_not_measured_is_refused(
    checkpoint: Path, name: str, content: str
) -> None:
    """A template beside the one in tokenizer_config.json goes before it."""
    (checkpoint / name).unlink(missing_ok=True)
    _write_manifest(checkpoint)
    (checkpoint / name).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{name} does not belong to it"):
        open_checkpoint(checkpoint)
