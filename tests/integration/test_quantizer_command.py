"""The command line, as somebody types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from quantizer.__main__ import _app
from tests.fakes.tiny_models import one_thread, write_tiny_held_out, write_tiny_model


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """For the models' size."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its checkpoint."""
    directory = tmp_path_factory.mktemp("command")
    write_tiny_model(directory / "model")
    options = ["--group-size", "32", "--samples", "4", "--length", "64", "--gap-ratio", "100", "--held-out"]
    held_out = write_tiny_held_out(directory / "held_out.jsonl")
    result = _invoke("run", "--model", directory / "model", "--out", directory / "out", *options, held_out)
    assert 0 == result[0], result[1]
    assert "published" in result[1]
    assert "greedy answers" in result[1]
    return directory


def _invoke(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard error, standard output."""
    result = CliRunner().invoke(_app, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr, result.stdout


def test_verify_passes_what_run_published(directory: Path) -> None:
    """Exit code 0, and a verdict that programs can read."""
    options = ["--gap-ratio", "100", "--held-out", directory / "held_out.jsonl", "--json"]
    code, _, output = _invoke("verify", "--model", directory / "model", "--checkpoint", directory / "out", *options)
    assert 0 == code
    verdict = json.loads(output)
    assert verdict["passed"]
    assert {"chat", "text"} == set(verdict["figures"]["domains"])


def test_verify_refuses_with_exit_code_one(directory: Path, tmp_path: Path) -> None:
    """The reason is told, and stands in the JSON."""
    for path in (directory / "out").iterdir():
        if path.name != "tidegate_manifest.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"] *= -1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    options = ["--held-out", directory / "held_out.jsonl", "--json"]
    code, told, output = _invoke("verify", "--model", directory / "model", "--checkpoint", tmp_path, *options)
    assert 1 == code
    assert "outside them differs from the source" in told.replace("\n", " ")
    assert not json.loads(output)["passed"]


def test_a_refused_run_ends_with_exit_code_one(directory: Path, tmp_path: Path) -> None:
    """With one line of explanation and no traceback."""
    code, told, _ = _invoke("run", "--model", directory / "model", "--out", tmp_path / "out", "--group-size", "7")
    assert 1 == code
    assert "group size 7" in told
    assert "Traceback" not in told


def test_a_target_that_cannot_be_made_is_named(directory: Path, tmp_path: Path) -> None:
    """In one line, as a disk that is full."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    code, told, _ = _invoke("run", "--model", directory / "model", "--out", tmp_path / "file" / "out")
    assert 1 == code
    assert str(tmp_path / "file") in told.replace("\n", "")


def test_a_path_with_brackets_is_told_as_it_is(directory: Path, tmp_path: Path) -> None:
    """They mean something to the library that colours the words."""
    path = tmp_path / "[" / "INST].jsonl"
    path.parent.mkdir()
    path.write_text("x", encoding="utf-8")
    code, told, _ = _invoke("run", "--model", directory / "model", "--out", tmp_path / "out", "--calibration", path)
    assert 1 == code
    assert "[/INST].jsonl:1: not JSON" in told


def test_a_full_disk_is_told_with_the_target(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that writes the layers names no file."""

    def fail(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr("quantizer.staging.save_file", fail)
    options = ["--group-size", "32", "--samples", "4", "--length", "64", "--out", tmp_path / "out"]
    code, told, _ = _invoke("run", "--model", directory / "model", *options)
    assert 1 == code
    assert f"cannot write {tmp_path / 'out'}: " in told.replace("\n", "")
