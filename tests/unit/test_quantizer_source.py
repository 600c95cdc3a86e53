from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantizer.errors import SourceError
from quantizer.source import check_model, load_source, number_format, rotary_base
from tests.fakes.tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "llama")


def _edit(directory: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of the model with another config."""
    target.mkdir()
    for path in directory.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    change(config)
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


def test_a_sound_source_is_loaded_in_float32(model_directory: Path) -> None:
    """Nothing is rounded before it is quantized; its own number format is kept for the checkpoint."""
    source = load_source(model_directory, device="cpu")
    assert torch.float32 == source.model.dtype
    assert torch.bfloat16 == number_format(source.config)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"rope_theta": 500000.0}, 500000.0),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}}, 100000.0),
        ({"rope_theta": 7.0, "rope_parameters": {"rope_theta": 7.0}}, 7.0),
        ({}, 10000.0),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, None),
    ],
)
def test_the_rotary_base_is_read_in_either_spelling(config: dict[str, Any], expected: float | None) -> None:
    """``rope_theta`` was the spelling before transformers 5; a base for each kind of layer has no single value."""
    assert expected == rotary_base(config)


def test_contradicting_rotary_bases_are_refused() -> None:
    """Readers differ in which of the two spellings they believe."""
    with pytest.raises(SourceError, match="rope_theta is 10000"):
        rotary_base({"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 100000.0}})


def test_a_rotary_base_ignored_by_the_loader_is_found(model_directory: Path) -> None:
    """Transformers 4.51 ignored ``rope_parameters`` and loaded the default base: 12 % perplexity, and no word of it."""
    source = load_source(model_directory, device="cpu")
    frequencies = source.model.model.rotary_emb.inv_freq
    frequencies.copy_(10000.0 ** -(torch.arange(len(frequencies)) / len(frequencies)))
    (problem,) = check_model(source.model, source.config, source.tokenizer)
    assert "the rotary base is 10000 in memory and 50000 in config.json" == problem


def test_embeddings_that_should_be_tied_and_are_not_are_found(model_directory: Path) -> None:
    """A head of its own answers differently from the one that the config promises."""
    source = load_source(model_directory, device="cpu")
    source.model.lm_head.weight = torch.nn.Parameter(source.model.lm_head.weight.clone())
    assert any("not tied" in problem for problem in check_model(source.model, source.config, source.tokenizer))


def test_a_tokenizer_larger_than_the_vocabulary_is_found(model_directory: Path) -> None:
    """Its last tokens would have no embedding."""
    source = load_source(model_directory, device="cpu")
    source.tokenizer.add_tokens([f"extra{number}" for number in range(200)])
    assert any("458 tokens" in problem for problem in check_model(source.model, source.config, source.tokenizer))


def test_nan_in_the_weights_is_found(model_directory: Path) -> None:
    """By the name of the tensor."""
    source = load_source(model_directory, device="cpu")
    source.model.model.norm.weight.data[3] = torch.nan
    assert ["NaN or infinity in model.norm.weight"] == check_model(source.model, source.config, source.tokenizer)


def test_a_weight_that_is_missing_on_disk_is_refused(model_directory: Path, tmp_path: Path) -> None:
    """Transformers fills it with random numbers and only warns."""
    directory = _edit(model_directory, tmp_path / "model", lambda config: None)
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"not on disk: model\.layers\.1\.mlp\.up_proj\.weight"):
        load_source(directory, device="cpu")


def test_a_quantized_source_is_refused(model_directory: Path, tmp_path: Path) -> None:
    """Quantizing twice is never meant."""
    directory = _edit(model_directory, tmp_path / "model", lambda config: config.update(quantization_config={}))
    with pytest.raises(SourceError, match="quantized already"):
        load_source(directory, device="cpu")


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    """The message names the file that is not there."""
    with pytest.raises(SourceError, match=r"config\.json"):
        load_source(tmp_path, device="cpu")


def test_a_cut_weight_file_is_refused_by_its_directory(model_directory: Path, tmp_path: Path) -> None:
    """As a source that cannot be loaded, and not with the stack trace of a library."""
    directory = _edit(model_directory, tmp_path / "cut", lambda config: config)
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SourceError, match="cut: cannot be loaded"):
        load_source(directory, device="cpu")


def test_layers_that_the_config_does_not_count_are_refused(model_directory: Path, tmp_path: Path) -> None:
    """They would be left out, and the rest agrees with its own copy."""
    directory = _edit(model_directory, tmp_path / "model", lambda config: config.update(num_hidden_layers=2))
    with pytest.raises(SourceError, match=r"more layers on disk than config\.json counts: model\.layers\.2\."):
        load_source(directory, device="cpu")


@pytest.mark.parametrize("dtype", ["float64", "auto", 5])
def test_a_number_format_that_no_engine_runs_is_refused(model_directory: Path, tmp_path: Path, dtype: object) -> None:
    """Before anything is done, and not by a checkpoint that cannot be served."""
    directory = _edit(model_directory, tmp_path / "model", lambda config: config.update(dtype=dtype))
    with pytest.raises(SourceError, match="and not bfloat16, float16 or float32"):
        load_source(directory, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(rope_parameters={"rope_theta": "x"}),
        lambda config: config.update(rope_parameters=[1]),
        lambda config: config.update(hidden_size="x"),
    ],
)
def test_a_config_of_other_types_is_refused_by_its_directory(
    model_directory: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Whatever the libraries raise."""
    with pytest.raises(SourceError):
        load_source(_edit(model_directory, tmp_path / "model", change), device="cpu")
