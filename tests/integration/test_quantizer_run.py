"""The two commands on tiny models: what is published, what is refused, and with which words."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantizer import manifest
from quantizer.backends.autoawq import AutoAwqBackend
from quantizer.backends.autoawq_cure import CuredAwqQuantizer
from quantizer.errors import CalibrationError, GateRefusedError, RecipeError, TargetError, UnsupportedModelError
from quantizer.gate import Limits
from quantizer.pipeline import Job, run, verify
from quantizer.progress import Silent
from quantizer.recipe import Recipe
from tests.fakes.tiny_models import ARCHITECTURES, one_thread, write_tiny_held_out, write_tiny_model, write_tokenizer

_RECIPE = Recipe(group_size=32, samples=6, length=96)
# Perplexity on real text tells nothing about a model with random weights; KL and the error of layers do.
_LIMITS = Limits(gap_ratio=100)


def _job(model: Path, out: Path, held_out: Path) -> Job:
    return Job(model=model, out=out, recipe=_RECIPE, limits=_LIMITS, held_out=held_out)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """For the models' size."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small held-out set."""
    return write_tiny_held_out(tmp_path_factory.mktemp("held-out") / "held_out.jsonl")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def published(source: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint."""
    out = tmp_path_factory.mktemp("published") / "llama-awq"
    run(_job(source, out, held_out), AutoAwqBackend(), Silent())
    return out


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to be spoiled."""
    return Path(shutil.copytree(published, tmp_path / "copied"))


def _edit_config(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture_is_quantized_and_verified(architecture: str, held_out: Path, tmp_path: Path) -> None:
    """What is published passes the gate again, read from disk by another command."""
    model = write_tiny_model(tmp_path / "model", architecture)
    run(_job(model, tmp_path / "out", held_out), AutoAwqBackend(), Silent())
    assert () == tuple(verify(model, tmp_path / "out", _LIMITS, Silent(), held_out).reasons)


def test_the_tokenizer_and_the_settings_are_the_sources_own(source: Path, published: Path) -> None:
    """AutoAWQ and transformers rewrite them: sampling on, cache off, a class name that older readers do not know."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (source / name).read_bytes() == (published / name).read_bytes()
    config = json.loads((published / "config.json").read_text(encoding="utf-8"))
    quantization = config.pop("quantization_config")
    assert json.loads((source / "config.json").read_text(encoding="utf-8")) == config
    assert ("awq", 4, 32, "gemm", True) == tuple(
        quantization[key] for key in ("quant_method", "bits", "group_size", "version", "zero_point")
    )


def test_a_float32_source_becomes_a_float16_checkpoint(held_out: Path, tmp_path: Path) -> None:
    """Engines do not run AWQ in float32, so neither the tensors nor the config say so."""
    model = write_tiny_model(tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    save_file({name: t.float() for name, t in tensors.items()}, model / "model.safetensors", metadata={"format": "pt"})
    _edit_config(model, lambda config: config.update(dtype="float32"))
    run(_job(model, tmp_path / "out", held_out), AutoAwqBackend(), Silent())
    assert "float16" == json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["dtype"]
    assert torch.float16 == load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"].dtype


def test_the_manifest_says_what_the_checkpoint_is_made_of(source: Path, published: Path) -> None:
    """Digests, recipe, calibration, figures and gate are there, and no text of the calibration."""
    found = manifest.read_manifest(published)
    assert found is not None
    assert manifest.source_digest(source) == found["source"]["sha256"]
    assert [] == manifest.differences(published, found)
    assert set(load_file(published / "model.safetensors")) == set(found["tensors"])
    assert 32 == found["recipe"]["group_size"]
    assert 6 == found["calibration"]["blocks"]
    assert {"chat", "text"} == set(found["figures"]["domains"])
    assert found["gate"]["passed"]


def test_the_report_is_one_file_that_fetches_nothing(published: Path) -> None:
    """No link, script or picture from elsewhere; the bars are drawn in the page."""
    html = (published / "report.html").read_text(encoding="utf-8")
    sources: list[str] = []

    class Finder(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            sources.extend(value or "" for name, value in attrs if name in {"src", "href"})
            assert tag not in {"script", "link", "iframe"}

    Finder().feed(html)
    assert [] == sources
    assert not re.search(r"url\(|@import", html)
    assert "rounded to nearest" in html


def test_a_second_run_finds_its_work_done(source: Path, published: Path, held_out: Path) -> None:
    """The same job returns the manifest of what stands there, and changes nothing."""
    before = {path.name: path.stat().st_mtime_ns for path in published.iterdir()}
    assert manifest.read_manifest(published) == run(_job(source, published, held_out), AutoAwqBackend(), Silent())
    assert before == {path.name: path.stat().st_mtime_ns for path in published.iterdir()}


def test_another_recipe_does_not_overwrite(source: Path, published: Path, held_out: Path) -> None:
    """Neither does a directory with something else in it disappear."""
    other = replace(_job(source, published, held_out), recipe=replace(_RECIPE, seed=7))
    with pytest.raises(TargetError, match="is something else"):
        run(other, AutoAwqBackend(), Silent())


def test_a_second_run_does_not_pass_other_limits_unjudged(source: Path, published: Path, held_out: Path) -> None:
    """What was measured is held against the limits of today; what stands there stays."""
    strict = replace(_job(source, published, held_out), limits=replace(_LIMITS, max_kl=1e-6))
    with pytest.raises(GateRefusedError, match="stands as it was published"):
        run(strict, AutoAwqBackend(), Silent())
    assert manifest.read_manifest(published)


def test_a_second_run_does_not_claim_another_held_out_set(source: Path, published: Path, tmp_path: Path) -> None:
    """Nothing was measured on it."""
    other = tmp_path / "other.txt"
    other.write_text("Other words to judge by.\n", encoding="utf-8")
    with pytest.raises(TargetError, match="was published by another held-out set"):
        run(_job(source, published, other), AutoAwqBackend(), Silent())


def test_a_second_run_does_not_call_what_the_source_had_before_published(
    source: Path, published: Path, held_out: Path, tmp_path: Path
) -> None:
    """How to sample decides no weights, but it is published with them."""
    model = Path(shutil.copytree(source, tmp_path / source.name))
    (model / "generation_config.json").write_text('{"temperature": 0.125}', encoding="utf-8")
    with pytest.raises(TargetError, match=r"had before in generation_config\.json"):
        run(_job(model, published, held_out), AutoAwqBackend(), Silent())


def test_a_held_out_set_without_anything_to_score_passes_nothing(source: Path, published: Path, tmp_path: Path) -> None:
    """One token has no successor to predict."""
    path = tmp_path / "short.txt"
    path.write_text("a", encoding="utf-8")
    with pytest.raises(CalibrationError, match="nothing to score"):
        verify(source, published, _LIMITS, Silent(), path)


@pytest.mark.parametrize("size", [64, 48])
def test_a_config_that_names_another_group_size_is_refused(
    size: int, copied: Path, source: Path, held_out: Path
) -> None:
    """An engine would read the scales by it."""
    (copied / manifest.FILE_NAME).unlink()
    _edit_config(copied, lambda config: config["quantization_config"].update(group_size=size))
    (reason,) = verify(source, copied, _LIMITS, Silent(), held_out).reasons
    assert f"is not in groups of {size}" in reason


def test_an_unsupported_architecture_is_refused_before_any_work(held_out: Path, tmp_path: Path) -> None:
    """With the list of those that are supported, and without leaving anything behind."""
    model = write_tiny_model(tmp_path / "model", "olmo2")
    with pytest.raises(UnsupportedModelError, match=r"'olmo2' .* gemma2, llama, mistral, qwen2, qwen3"):
        run(_job(model, tmp_path / "out", held_out), AutoAwqBackend(), Silent())
    assert not (tmp_path / "out").exists()


def test_a_group_size_that_does_not_fit_is_refused_before_any_work(held_out: Path, tmp_path: Path) -> None:
    """AutoAWQ meets it with an assertion in the middle of the run; here the sizes that would fit are named."""
    model = write_tiny_model(tmp_path / "model", intermediate_size=224)
    job = replace(_job(model, tmp_path / "out", held_out), recipe=replace(_RECIPE, group_size=64))
    with pytest.raises(RecipeError, match=r"64 does not divide the 224 inputs .*possible here: 32"):
        run(job, AutoAwqBackend(), Silent())


def test_the_naive_autoawq_result_is_refused_and_kept_for_inspection(
    source: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale search as AutoAWQ ships it writes garbage on a CPU; the refusal names the cause."""
    monkeypatch.delattr(CuredAwqQuantizer, "_compute_best_scale")  # AutoAWQ's own comes to light
    with pytest.raises(GateRefusedError) as refusal:
        run(_job(source, tmp_path / "out", held_out), AutoAwqBackend(), Silent())
    assert "AutoAWQ does this" in str(refusal.value)
    assert not (tmp_path / "out").exists()
    refused = tmp_path / ".out.staging" / "checkpoint"
    assert "Refused" in (refused / "report.html").read_text(encoding="utf-8")
    assert manifest.read_manifest(refused) is None


def test_a_checkpoint_without_manifest_is_judged_by_its_figures(copied: Path, source: Path, held_out: Path) -> None:
    """Other tools write no manifest; their checkpoints pass the same gate."""
    (copied / manifest.FILE_NAME).unlink()
    assert () == tuple(verify(source, copied, _LIMITS, Silent(), held_out).reasons)


def test_a_flipped_bit_is_refused(copied: Path, source: Path, held_out: Path) -> None:
    """With the name of the tensor that it is in."""
    content = bytearray((copied / "model.safetensors").read_bytes())
    content[-1000] ^= 16
    (copied / "model.safetensors").write_bytes(content)
    (reason,) = verify(source, copied, _LIMITS, Silent(), held_out).reasons
    assert re.search(r"SHA-256 differs \(in model\.\S+\)", reason)


def test_a_truncated_shard_is_refused(copied: Path, source: Path, held_out: Path) -> None:
    """By its length where there is a manifest, and by the file's own header where there is none."""
    content = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(content[: len(content) // 2])
    (reason,) = verify(source, copied, _LIMITS, Silent(), held_out).reasons
    assert "bytes long; the manifest says" in reason
    (copied / manifest.FILE_NAME).unlink()
    (reason,) = verify(source, copied, _LIMITS, Silent(), held_out).reasons
    assert "cannot be loaded" in reason


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
        lambda config: (config.pop("rope_parameters"), config.update(rope_theta=10000.0)),
    ],
    ids=["rope_parameters", "rope_theta"],
)
def test_a_wrong_rotary_base_is_refused(
    change: Callable[[dict[str, Any]], object], copied: Path, source: Path, held_out: Path
) -> None:
    """In either spelling, with both values."""
    (copied / manifest.FILE_NAME).unlink()
    _edit_config(copied, change)
    assert ["the rotary base is 10000.0; the source's is 50000.0"] == list(
        verify(source, copied, _LIMITS, Silent(), held_out).reasons
    )


def test_a_swapped_tokenizer_is_refused(copied: Path, source: Path, held_out: Path) -> None:
    """The same vocabulary in another order would make sense of nothing."""
    (copied / manifest.FILE_NAME).unlink()
    text = (copied / "tokenizer.json").read_text(encoding="utf-8")
    (copied / "tokenizer.json").write_text(text.replace('"a"', '"a "'), encoding="utf-8")
    (reason,) = verify(source, copied, _LIMITS, Silent(), held_out).reasons
    assert reason.startswith("tokenizer.json is not the source's")


def test_another_chat_template_is_refused(copied: Path, source: Path, held_out: Path) -> None:
    """A model answers in the form that it was trained in."""
    (copied / manifest.FILE_NAME).unlink()
    write_tokenizer(copied, template="{{ messages[0]['content'] }}")
    assert ["the chat template is not the source's"] == list(
        verify(source, copied, _LIMITS, Silent(), held_out).reasons
    )


def test_a_missing_tensor_is_refused(copied: Path, source: Path, held_out: Path) -> None:
    """VLLM loads such a checkpoint, and speaks garbage."""
    (copied / manifest.FILE_NAME).unlink()
    tensors = load_file(copied / "model.safetensors")
    del tensors["model.layers.1.input_layernorm.weight"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    (reason,) = verify(source, copied, _LIMITS, Silent(), held_out).reasons
    assert "missing keys: model.layers.1.input_layernorm.weight" in reason


def test_one_damaged_layer_is_named(copied: Path, source: Path, held_out: Path) -> None:
    """Its scales doubled, layer 1 stands out, and the finding says so."""
    (copied / manifest.FILE_NAME).unlink()
    tensors = load_file(copied / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.scales"] *= 2
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    reasons = verify(source, copied, _LIMITS, Silent(), held_out).reasons
    assert any(reason.startswith("layers 1: reconstruction error") for reason in reasons)
    assert "damaged tensors" in reasons[-1]


def test_a_dense_model_is_no_checkpoint(source: Path, held_out: Path) -> None:
    """``verify`` says so instead of comparing the source with itself."""
    (reason,) = verify(source, source, _LIMITS, Silent(), held_out).reasons
    assert "is not quantized" in reason
