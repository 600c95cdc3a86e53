"""Each trap on the way from AutoAWQ to a good checkpoint, with a test that fails without its cure."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quantizer import awq_format
from quantizer.backends.autoawq_cure import CuredAwqQuantizer, record_layer_calls
from quantizer.calibration.documents import read_corpus
from quantizer.calibration.packing import Blocks, pack
from quantizer.calibration.selection import select
from quantizer.calibration.tokens import TokenizedDocument
from quantizer.errors import CalibrationError
from quantizer.recipe import Recipe
from quantizer.source import Source, load_source
from tests.fakes.tiny_models import one_thread, write_tiny_model

_GROUP = 32
_AutoAwq: Any = CuredAwqQuantizer.__mro__[1]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """For the models' size."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A tiny Llama."""
    return load_source(write_tiny_model(tmp_path_factory.mktemp("models") / "llama"), device="cpu")


@pytest.fixture(scope="module")
def blocks(source: Source) -> Blocks:
    """A little calibration."""
    return select(None, source.tokenizer, Recipe(samples=6, length=96)).blocks


def _quantizer(source: Source, blocks: Blocks, kind: type[CuredAwqQuantizer] = CuredAwqQuantizer) -> CuredAwqQuantizer:
    return kind(source.model, group_size=_GROUP, blocks=blocks, norm_dtype=torch.bfloat16)


def _layer_error(source: Source, blocks: Blocks, kind: type[CuredAwqQuantizer]) -> float:
    """Mean squared error of layer 0 after ``kind`` has quantized it."""
    quantizer = _quantizer(source, blocks, kind)
    inputs = quantizer.inps
    tensors, expected = quantizer.quantize_layer(0, inputs)
    layer = copy.deepcopy(source.model.model.layers[0])
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            packed = {part: tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales")}
            module.weight.data = awq_format.unpack(**packed).dequantize()
    for name, parameter in layer.named_parameters():
        if name in tensors:
            parameter.data = tensors[name].float()
    with torch.no_grad():
        actual = quantizer._module_forward(inputs, layer, quantizer._call_kwargs[0])
    return float((actual - expected).pow(2).mean())


def test_weights_are_restored_between_trials(source: Source, blocks: Blocks) -> None:
    """AutoAWQ's scale search backs weights up with ``.cpu()``, which on a CPU is no copy: its result is garbage."""

    class Naive(CuredAwqQuantizer):
        _compute_best_scale = _AutoAwq._compute_best_scale

    assert _layer_error(source, blocks, Naive) > 5 * _layer_error(source, blocks, CuredAwqQuantizer)


def test_the_model_is_left_as_it_was(source: Source, blocks: Blocks) -> None:
    """The source is compared with its checkpoint afterwards, so quantizing may not touch it."""
    before = {name: tensor.clone() for name, tensor in source.model.state_dict().items()}
    quantizer = _quantizer(source, blocks)
    quantizer.quantize_layer(0, quantizer.inps)
    assert all(torch.equal(before[name], tensor) for name, tensor in source.model.state_dict().items())


def test_linears_with_the_same_input_have_features_of_their_own(source: Source, blocks: Blocks) -> None:
    """Scaling the input of one of q, k and v may not scale that of the others."""
    quantizer = _quantizer(source, blocks)
    layer = copy.deepcopy(quantizer.modules[0])
    quantizer.module_kwargs = quantizer._call_kwargs[0]
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    features = quantizer._get_input_feat(layer, linears)
    assert len(features) == len({feature.data_ptr() for feature in features.values()})


def test_no_sample_is_dropped_for_its_length(source: Source) -> None:
    """AutoAWQ skips whatever is longer than a block; of 64 documents 4 survived, without a word."""
    documents = [TokenizedDocument(token_ids=tuple(range(100)), prompt_tokens=100, turns=0)] * 8
    blocks = pack(documents, samples=25, length=32, pad_id=0)
    assert 8 * 100 == blocks.tokens()
    assert 8 == blocks.divided


def test_too_little_calibration_is_refused(source: Source, tmp_path: Path) -> None:
    """AutoAWQ calibrated on one block where 32 were asked for."""
    path = tmp_path / "few.txt"
    path.write_text("Hardly anything.", encoding="utf-8")
    with pytest.raises(CalibrationError, match="holds 16 tokens"):
        select(path, source.tokenizer, Recipe())


def test_built_in_prose_is_used_and_is_no_traffic(source: Source) -> None:
    """Traffic of chats would seem to drift from a calibration that shows a third of plain text."""
    calibration = select(None, source.tokenizer, Recipe(samples=32, length=256))
    prose = [document.text for document in read_corpus(None).documents if document.text]
    used = [source.tokenizer.decode(block) for block in calibration.blocks.token_ids]
    assert any(text[:200] in block for text in prose for block in used)
    assert 0 == calibration.histogram.by_turns()[0]


def test_chats_need_a_template(source: Source) -> None:
    """Chats without the model's own template would calibrate on text that it never sees."""
    tokenizer = copy.deepcopy(source.tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(CalibrationError, match="no chat template"):
        select(None, tokenizer, Recipe())


def test_padding_has_no_effect(source: Source) -> None:
    """Two runs that differ in the padding token write the same bits."""
    documents = [TokenizedDocument(token_ids=tuple(range(n, n + 60)), prompt_tokens=60, turns=0) for n in range(4)]
    results = []
    for pad_id in (3, 200):
        quantizer = _quantizer(source, pack(documents, samples=4, length=96, pad_id=pad_id))
        results.append(quantizer.quantize_layer(0, quantizer.inps)[0])
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_packed_chats_do_not_see_each_other(source: Source) -> None:
    """The second document of a block gives the hidden states that it gives alone."""
    one, two = (tuple(range(start, start + 40)) for start in (10, 90))
    both = torch.tensor([one + two])
    positions = torch.tensor([[*range(40), *range(40)]])
    with torch.no_grad():
        packed = source.model.model(input_ids=both, position_ids=positions, use_cache=False).last_hidden_state[0, 40:]
        alone = source.model.model(input_ids=torch.tensor([two]), use_cache=False).last_hidden_state[0]
    assert torch.allclose(alone, packed, atol=1e-4)


def test_each_layer_gets_its_own_mask(tmp_path: Path) -> None:
    """AutoAWQ calls every layer with the mask of layer 0, which in Gemma 2 has a sliding window and others have not."""
    gemma = load_source(write_tiny_model(tmp_path / "gemma2", "gemma2", sliding_window=16), device="cpu")
    ids = torch.arange(64).unsqueeze(0)
    hidden, calls = record_layer_calls(gemma.model.model, gemma.model.model.layers, token_ids=ids, positions=ids)
    for layer, kwargs in zip(gemma.model.model.layers, calls, strict=True):
        with torch.no_grad():
            hidden = layer(hidden, **kwargs)
    with torch.no_grad():
        expected = gemma.model.model(input_ids=ids, use_cache=False).last_hidden_state
        assert torch.allclose(expected, gemma.model.model.norm(hidden), atol=1e-4)


def test_the_clip_search_by_matrix_product_finds_what_autoawqs_finds(source: Source, blocks: Blocks) -> None:
    """d^T (X^T X) d is the same objective, so no clip of ours is worse under AutoAWQ's own sum over tokens."""
    torch.manual_seed(0)
    weight, inputs = torch.randn(64, 128), torch.randn(1, 300, 128) * torch.rand(128).exp()
    quantizer = _quantizer(source, blocks)
    theirs = _AutoAwq._compute_best_clip(quantizer, weight, inputs, n_sample_token=300)
    ours = quantizer._compute_best_clip(weight, inputs)

    def error(limits: torch.Tensor) -> torch.Tensor:
        grouped = weight.view(64, -1, _GROUP)
        clipped = torch.clamp(grouped, -limits, limits).view_as(weight)
        difference = (awq_format.round_to_nearest(clipped, _GROUP).dequantize() - weight).view_as(grouped)
        return torch.einsum("tgi,ogi->tog", inputs.view(-1, 128 // _GROUP, _GROUP), difference).pow(2).mean(0)

    assert float((theirs == ours).float().mean()) > 0.9  # theirs rounds for another scale
    assert bool((error(ours) <= error(theirs) * 1.0001).all())


def test_norms_lose_nothing_to_the_number_format(source: Source, blocks: Blocks) -> None:
    """A norm over its scales, rounded to bfloat16, times those scales is the norm again, to float32 accuracy."""
    quantizer = _quantizer(source, blocks)
    layer = source.model.model.layers[0]
    scales = torch.rand(128) + 0.1
    _, _, exact = quantizer._exact(layer, "input_layernorm", (), scales)
    norm = layer.input_layernorm.weight.detach()
    assert torch.allclose(norm, (norm / exact).bfloat16().float() * exact, rtol=1e-6)
    assert torch.allclose(scales, exact, rtol=2**-8)


def test_the_search_is_never_worse_than_no_scales(source: Source, blocks: Blocks) -> None:
    """Where every scale of AWQ's grid does harm, none is used."""
    quantizer = _quantizer(source, blocks)
    linear = nn.Linear(64, 64, bias=False)
    # Weights on the grid of 4 bits already: any scale but 1 moves them off it.
    linear.weight.data = awq_format.round_to_nearest(torch.randn(64, 64), _GROUP).dequantize()
    inputs = torch.rand(2, 96, 64)
    scales = quantizer._compute_best_scale(
        inputs, torch.rand(64), inputs.abs().mean((0, 1)), linear, [linear], linear(inputs), {}
    )
    assert torch.equal(torch.ones(64), scales)


@pytest.mark.parametrize("architecture", ["gemma2", "llama", "mistral", "qwen2", "qwen3"])
def test_scales_cancel_out(architecture: str, tmp_path: Path) -> None:
    """Without rounding, a layer with its scales applied computes what it did before: norms and biases take part."""
    source = load_source(write_tiny_model(tmp_path / architecture, architecture), device="cpu")
    blocks = select(None, source.tokenizer, Recipe(samples=4, length=96)).blocks

    class Unrounded(CuredAwqQuantizer):
        def _to_tensors(self, layer: nn.Module, *_: object) -> dict[str, torch.Tensor]:
            return {"outputs": self._module_forward(first, layer, self._call_kwargs[0])}

    unrounded = _quantizer(source, blocks, Unrounded)
    first = unrounded.inps
    tensors, expected = unrounded.quantize_layer(0, first)
    assert torch.allclose(expected, tensors["outputs"], rtol=1e-3, atol=1e-3)
