from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quantizer.errors import CheckpointError
from quantizer.manifest import FILE_NAME, chat_template, describe, differences, read_manifest, tokenizer_digests


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory with a config, two tensors and a tokenizer."""
    save_file({"a": torch.arange(64.0), "b": torch.ones(8)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    return tmp_path


def test_an_untouched_checkpoint_is_as_its_manifest_says(checkpoint: Path) -> None:
    """Nothing differs, and reports are no part of it."""
    manifest = describe(checkpoint)
    assert [] == differences(checkpoint, manifest)
    assert {"config.json", "model.safetensors", "tokenizer.json"} == set(manifest["files"])


def test_a_flipped_bit_is_found_and_its_tensor_named(checkpoint: Path) -> None:
    """The last byte belongs to the last tensor in the file."""
    manifest = describe(checkpoint)
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (problem,) = differences(checkpoint, manifest)
    assert "SHA-256 differs (in " in problem


def test_a_damaged_header_is_told_apart(checkpoint: Path) -> None:
    """A file that cannot be parsed any more is said to be so."""
    manifest = describe(checkpoint)
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[9] ^= 1
    path.write_bytes(content)
    assert ["header is damaged" in problem for problem in differences(checkpoint, manifest)] == [True]


def test_a_cut_file_and_a_missing_one_are_named(checkpoint: Path) -> None:
    """Each with its own words."""
    manifest = describe(checkpoint)
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    (checkpoint / "tokenizer.json").unlink()
    problems = sorted(differences(checkpoint, manifest))
    assert "bytes long; the manifest says" in problems[0]
    assert "tokenizer.json is missing" == problems[1]


def test_the_checkpoint_digest_is_the_workers(checkpoint: Path) -> None:
    """SHA-256 over name, length and digest of config.json and of each weight file, as worker/weights.py has it."""
    total = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        content = (checkpoint / name).read_bytes()
        total.update(f"{name}\0{len(content)}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    assert total.hexdigest() == describe(checkpoint)["checkpoint_sha256"]


def test_the_template_is_the_same_in_either_file(checkpoint: Path) -> None:
    """Tools move it between two files; its text is what counts."""
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    in_its_own = tokenizer_digests(checkpoint)
    (checkpoint / "chat_template.jinja").unlink()
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}), encoding="utf-8")
    assert in_its_own == tokenizer_digests(checkpoint)
    assert "{{ messages }}" == chat_template(checkpoint)


def test_a_checkpoint_may_have_no_manifest_but_not_a_broken_one(checkpoint: Path) -> None:
    """Other tools write none; half a one is damage."""
    assert read_manifest(checkpoint) is None
    for content in ("{", "[]", '{"format": "other/1"}'):
        (checkpoint / FILE_NAME).write_text(content, encoding="utf-8")
        with pytest.raises(CheckpointError):
            read_manifest(checkpoint)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 20_000,
        '{"format": "tidegate.manifest/1"}',
        '{"format": "tidegate.manifest/1", "files": {"a": 5}, "tensors": {}}',
    ],
    ids=["nested", "empty", "other types"],
)
def test_a_manifest_that_says_nothing_is_a_broken_one(checkpoint: Path, content: str) -> None:
    """As one of another format."""
    (checkpoint / FILE_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=FILE_NAME):
        read_manifest(checkpoint)


@pytest.mark.parametrize("content", [b"nope", b"[]", b'{"chat_template": [{"name": "default"}]}'])
def test_a_template_that_cannot_be_read_is_named_by_its_file(tmp_path: Path, content: bytes) -> None:
    """It is the checkpoint that is at fault."""
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        chat_template(tmp_path)
