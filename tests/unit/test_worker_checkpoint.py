from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import worker
from worker.checkpoint import CheckpointError, open_checkpoint

_DEEP = b"[" * 20_000 + b"]" * 20_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A checkpoint, to be spoiled."""
    return Path(shutil.copytree(Path(worker.__file__).parent / "sim_model", tmp_path / "model"))


def _weights(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("config.json", _DEEP, id="nested config"),
        pytest.param("tokenizer_config.json", _DEEP, id="nested tokenizer config"),
        pytest.param("generation_config.json", _DEEP, id="nested generation config"),
        pytest.param("canaries.json", _DEEP, id="nested canaries"),
        pytest.param("tidegate_manifest.json", _DEEP, id="nested manifest"),
        pytest.param("model.safetensors.index.json", _DEEP, id="nested index"),
        pytest.param("model.safetensors", _weights(_DEEP), id="nested header"),
        pytest.param("model.safetensors", _weights(b'{"a": {"data_offsets": [0, "x"]}}'), id="offset"),
        pytest.param("chat_template.jinja", b"\xff\xfe", id="template in another encoding"),
        pytest.param("canaries.json", b"[5]", id="canary"),
        pytest.param("generation_config.json", b'{"min_new_tokens": -1}', id="least output below 0"),
        pytest.param(
            "tidegate_manifest.json",
            b'{"format": "tidegate.manifest/1", "files": {"a": {"bytes": Infinity, "sha256": ""}}}',
            id="endless file",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(directory: Path, name: str, content: bytes) -> None:
    """In one line, with which the worker ends, whatever is wrong with it."""
    (directory / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(directory)


@pytest.mark.parametrize("template", ['"\\ud800"', "5", '[{"name": "default"}]'])
def test_a_template_that_is_no_text_is_refused(directory: Path, template: str) -> None:
    """Half of a surrogate pair is none either: it has no bytes to send."""
    (directory / "chat_template.jinja").unlink()
    (directory / "tokenizer_config.json").write_text(f'{{"chat_template": {template}}}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: chat_template is not text"):
        open_checkpoint(directory)


@pytest.mark.parametrize("template", ["null", '["a"]', '[{"name": "rag", "template": "x"}]'])
def test_a_checkpoint_may_be_without_a_template(directory: Path, template: str) -> None:
    """Some say so with a null, and some have only templates for purposes of their own."""
    (directory / "chat_template.jinja").unlink()
    (directory / "tokenizer_config.json").write_text(f'{{"chat_template": {template}}}', encoding="utf-8")
    assert not open_checkpoint(directory).chat_template


def test_a_directory_whose_name_is_too_long_is_named() -> None:
    """As one that is not there."""
    with pytest.raises(CheckpointError, match="xxx: File name too long"):
        open_checkpoint(Path("x" * 300))


def test_a_checkpoint_without_canaries_whose_tokenizer_is_damaged_is_named(directory: Path) -> None:
    """Libraries raise what comes."""
    (directory / "canaries.json").unlink()
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": 5}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="model: its canaries cannot be rendered: "):
        open_checkpoint(directory)


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        pytest.param("top_k", -1, "must be from 0 to 1024", id="none, to some"),
        pytest.param("top_p", 0, "must be above 0 to 1", id="at an open end"),
        pytest.param("temperature", 2.5, "must be from 0 to 2", id="above"),
    ],
)
def test_defaults_under_which_no_request_would_pass_are_refused(
    directory: Path, name: str, value: float, bounds: str
) -> None:
    """At the start, and by name, rather than with each request that does not say otherwise."""
    config = {"max_new_tokens": 100, "temperature": 0.6, "top_k": 20} | {name: value}
    (directory / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: {name} {bounds}, and is {value}"):
        open_checkpoint(directory)
