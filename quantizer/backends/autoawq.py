"""The default backend: AutoAWQ 0.2.9, cured, layer by layer, so that a killed run goes on where it was."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from quantizer.backends.backend import Quantized
from quantizer.calibration.packing import Blocks
from quantizer.errors import RecipeError, UnsupportedModelError
from quantizer.progress import Progress
from quantizer.recipe import BITS, PACKED_OUTPUTS, Recipe
from quantizer.source import Source, number_format
from quantizer.staging import Staging

# AutoAWQ names more; these are the ones whose checkpoints are quantized, verified and served in our tests.
SUPPORTED = ("gemma2", "llama", "mistral", "qwen2", "qwen3")


class AutoAwqBackend:
    """See ``backend.Backend`` for the contract and ``autoawq_cure`` for what is repaired."""

    def versions(self) -> dict[str, str]:
        """AutoAWQ's own; the cure is versioned with this package."""
        return {"autoawq": importlib.metadata.version("autoawq")}

    def check(self, source: Source, recipe: Recipe) -> None:
        """Architecture, and the shapes of every linear layer."""
        model_type = source.config.get("model_type")
        if model_type not in SUPPORTED:
            raise UnsupportedModelError(f"model_type {model_type!r} is not among the supported: {', '.join(SUPPORTED)}")
        for name, linear in named_linears(source.model.base_model.layers):
            if linear.in_features % recipe.group_size:
                raise RecipeError(
                    f"group size {recipe.group_size} does not divide the {linear.in_features} inputs of {name}; "
                    f"{_fitting_sizes(source.model)}"
                )
            if linear.out_features % PACKED_OUTPUTS:
                raise RecipeError(f"{name} has {linear.out_features} outputs, not a multiple of {PACKED_OUTPUTS}")

    def quantize(
        self, source: Source, recipe: Recipe, blocks: Blocks, staging: Staging, progress: Progress
    ) -> Quantized:
        """Layer by layer into ``staging``; what stands outside the layers is the source's own."""
        layers = source.model.base_model.layers
        dtype = number_format(source.config)
        finished = staging.finished_layers()
        if finished < len(layers):
            with progress.stage("loading AutoAWQ"):  # ten seconds, which `verify` and a finished run should not pay
                from quantizer.backends.autoawq_cure import CuredAwqQuantizer  # noqa: PLC0415
            quantizer = CuredAwqQuantizer(source.model, group_size=recipe.group_size, blocks=blocks, norm_dtype=dtype)
            inputs = staging.inputs(finished).to(quantizer.inps) if finished else quantizer.inps
            with progress.stage("quantizing layers", total=len(layers), done=finished) as advance:
                for index in range(finished, len(layers)):
                    tensors, inputs = quantizer.quantize_layer(index, inputs)
                    staging.save_layer(index, tensors, inputs)
                    advance()
        prefix = next(name for name, module in source.model.named_modules() if module is layers)
        tensors = dict(_outside_layers(source.model, prefix, dtype))
        for index in range(len(layers)):
            tensors |= {f"{prefix}.{index}.{name}": tensor for name, tensor in staging.layer(index).items()}
        return Quantized(tensors=tensors, quantization_config=quantization_config(recipe))


def quantization_config(recipe: Recipe) -> dict[str, Any]:
    """What AutoAWQ writes, and transformers and vLLM read."""
    return {
        "quant_method": "awq",
        "version": "gemm",
        "bits": BITS,
        "group_size": recipe.group_size,
        "zero_point": True,
        "modules_to_not_convert": None,
    }


def named_linears(layers: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers that are quantized: all those inside decoder layers."""
    return ((name, module) for name, module in layers.named_modules() if isinstance(module, nn.Linear))


def _outside_layers(model: Any, prefix: str, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Embeddings, final norm and, unless it is the embeddings, lm_head."""
    embeddings = model.get_input_embeddings().weight.data_ptr()
    for name, tensor in model.state_dict().items():
        is_tied_copy = tensor.data_ptr() == embeddings and name.startswith("lm_head.")
        if not name.startswith(f"{prefix}.") and not is_tied_copy:
            yield name, tensor.to("cpu", dtype)


def _fitting_sizes(model: Any) -> str:
    inputs = {linear.in_features for _, linear in named_linears(model.base_model.layers)}
    fitting: Sequence[str] = [str(size) for size in (128, 64, 32) if not any(count % size for count in inputs)]
    return f"possible here: {', '.join(fitting)}" if fitting else "no group size fits this model"
