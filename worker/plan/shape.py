"""The size of a model: weights, and KV cache for each token, from its config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MODELS = Path(__file__).parent / "models"
_DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
# Of a group's scale and zero point, as AWQ and GPTQ keep them beside the weights.
_GROUP_BITS = 16 + 4
# Keys of models that hold or compute something else than is reckoned with here.
_UNLIKE = {
    "kv_lora_rank": "its KV cache is compressed (MLA)",
    "n_routed_experts": "it is a mixture of experts",
    "num_experts": "it is a mixture of experts",
    "num_local_experts": "it is a mixture of experts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A dense decoder with attention in every layer. ``are_weights_measured``: by its files, not by its shape."""

    name: str
    parameters: int
    weight_bytes: int
    are_weights_measured: bool
    kv_bytes_per_token: int
    context_length: int


def load_shape(model: str) -> ModelShape:
    """The shape of the checkpoint in the folder ``model``, or of a shipped one of that name. Raises ``ValueError``."""
    directory = Path(model)
    shipped = _MODELS / f"{model}.json"
    is_shipped = not directory.is_dir() and shipped.is_file()
    path = shipped if is_shipped else directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        files = [] if is_shipped else [file.stat().st_size for file in directory.glob("*.safetensors")]
        return shape_of(config, name=model if is_shipped else directory.resolve().name, file_bytes=sum(files))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in _MODELS.glob("*.json")))
        raise ValueError(f"{model!r} is no folder with a config.json; known by name are: {known}") from error
    except KeyError as error:
        raise ValueError(f"{path}: no {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def shape_of(config: Mapping[str, Any], *, name: str, file_bytes: int = 0) -> ModelShape:
    """What a config.json says. ``file_bytes`` are those of the weights' files; 0 where there are none.

    Raises ``KeyError`` or ``ValueError``.
    """
    config = {**config, **config.get("text_config", {})}
    for key, reason in _UNLIKE.items():
        if config.get(key):
            raise ValueError(f"{reason} ({key}), which no profile here was measured for")
    hidden, layers, heads = (config[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    linear = layers * (attention + 3 * hidden * config["intermediate_size"])
    embedding = (1 if config.get("tie_word_embeddings") else 2) * config["vocab_size"] * hidden
    value_bytes = _DTYPE_BYTES[config.get("dtype") or config.get("torch_dtype") or "bfloat16"]
    estimate = int(linear * _bits(config, value_bytes) / 8) + embedding * value_bytes
    return ModelShape(
        name=name,
        parameters=linear + embedding,
        weight_bytes=file_bytes or estimate,
        are_weights_measured=bool(file_bytes),
        kv_bytes_per_token=2 * layers * kv_heads * head_dim * value_bytes,
        context_length=config["max_position_embeddings"],
    )


def _bits(config: Mapping[str, Any], value_bytes: int) -> float:
    """Of one weight of a linear layer, with its share of its group's scale and zero point."""
    quantization = config.get("quantization_config")
    if not quantization:
        return 8.0 * value_bytes
    if "bits" in quantization:
        group = quantization.get("group_size", 128)
        return float(quantization["bits"]) + (_GROUP_BITS / group if group > 0 else 0)
    if quantization.get("quant_method") == "fp8":
        return 8.0
    weights = next(iter(quantization["config_groups"].values()))["weights"]  # compressed-tensors
    group = weights.get("group_size") or 0
    return float(weights["num_bits"]) + (_GROUP_BITS / group if group > 0 else 0)
