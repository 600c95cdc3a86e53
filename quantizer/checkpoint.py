"""Write a checkpoint directory, and read one back as a dense model, from any tool that vLLM can serve."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from quantizer import awq_format
from quantizer.backends.backend import Quantized
from quantizer.errors import CheckpointError
from quantizer.manifest import weight_files
from quantizer.source import number_format

_SHARD_BYTES = 5 * 10**9
# Published byte for byte as the source has them: what the tokenizer is, how chats are rendered, how to sample.
_COMPANIONS = (
    "added_tokens.json",
    "canaries.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
_COMPANION_PATTERNS = ("LICENSE*", "NOTICE*")


def companions(source: Path) -> list[Path]:
    """The files of a model directory that are published as they are, by name."""
    named = {source / name for name in _COMPANIONS}
    named.update(path for pattern in _COMPANION_PATTERNS for path in source.glob(pattern))
    return sorted(path for path in named if path.is_file())


def write_checkpoint(directory: Path, source: Path, config: Mapping[str, Any], quantized: Quantized) -> None:
    """Write weights, the source's companions, and the source's config with nothing but the quantization added."""
    save_torch_state_dict(dict(quantized.tensors), directory, max_shard_size=_SHARD_BYTES, metadata={"format": "pt"})
    for path in companions(source):
        shutil.copyfile(path, directory / path.name)
    published = {**config, "quantization_config": dict(quantized.quantization_config)}
    key = "dtype" if "dtype" in config else "torch_dtype"
    published[key] = str(number_format(dict(config))).removeprefix("torch.")
    (directory / "config.json").write_text(json.dumps(published, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_checkpoint(directory: Path, *, device: str) -> Any:
    """A float32 model with the weights that an engine would compute with. Raises ``CheckpointError``."""
    try:
        return _load(directory).float().to(device).eval()
    except CheckpointError:
        raise
    except Exception as error:  # as in load_source
        raise CheckpointError(f"{directory}: cannot be loaded: {error}") from error


def _load(directory: Path) -> Any:
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        raise CheckpointError(f"{directory} is not quantized: its config has no quantization_config")
    if quantization["quant_method"] == "awq":
        return _load_awq(directory, config)
    options = {"quantization_config": _decompressed(quantization), "trust_remote_code": False}
    with warnings.catch_warnings():  # that our option goes before the checkpoint's own is what we want
        warnings.filterwarnings("ignore", message="You passed `quantization_config`", category=UserWarning)
        return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True, **options)


def group_size(config: Mapping[str, Any]) -> int:
    """The group size that a checkpoint was quantized with. Raises ``CheckpointError``."""
    quantization = config.get("quantization_config") or {}
    groups = [entry.get("weights") or {} for entry in (quantization.get("config_groups") or {}).values()]
    sizes = {entry.get("group_size") for entry in [quantization, *groups]} - {None}
    if len(sizes) != 1 or not isinstance(size := sizes.pop(), int) or size < 1:
        raise CheckpointError("config.json: quantization_config names no single group size")
    return size


def _load_awq(directory: Path, config: Any) -> Any:
    quantization = config.quantization_config
    if (quantization.get("bits"), quantization.get("zero_point"), quantization.get("version")) != (4, True, "gemm"):
        raise CheckpointError(f"{directory}: only 4-bit AWQ with zero points in the gemm layout is known")
    stored: dict[str, torch.Tensor] = {}
    for path in weight_files(directory):
        stored |= load_file(path)
    dense: dict[str, torch.Tensor] = {}
    for name, tensor in stored.items():
        layer, _, kind = name.rpartition(".")
        if kind == "qweight":
            groups = awq_format.unpack(tensor, stored[f"{layer}.qzeros"], stored[f"{layer}.scales"])
            if groups.scales.shape[1] * quantization["group_size"] != groups.integers.shape[1]:
                raise CheckpointError(f"{layer} is not in groups of {quantization['group_size']}, as config.json says")
            dense[f"{layer}.weight"] = groups.dequantize()
        elif kind not in ("qzeros", "scales"):
            dense[name] = tensor.float()
    del config.quantization_config
    architecture = getattr(transformers, config.architectures[0])
    model, loading = architecture.from_pretrained(
        None, config=config, state_dict=dense, dtype=torch.float32, output_loading_info=True
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading[problem]:
            names = sorted(map(str, loading[problem]))
            raise CheckpointError(f"{directory}: {problem.replace('_', ' ')}: {', '.join(names[:5])}")
    return model


def _decompressed(quantization: Mapping[str, Any]) -> Any:
    if quantization["quant_method"] != "compressed-tensors":
        raise CheckpointError(f"quant_method {quantization['quant_method']!r} is neither awq nor compressed-tensors")
    return transformers.CompressedTensorsConfig(dequantize=True)
