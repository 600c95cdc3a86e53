"""The dense model to be quantized: loaded once, then checked against its own config before anything is done with it.

A source that is loaded wrongly passes every comparison with its own quantized copy. Older transformers, for instance,
ignore ``rope_parameters``, and a checkpoint without ``lm_head`` gets a random one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from quantizer.errors import SourceError

_DEFAULT_ROTARY_BASE = 10000.0  # of every architecture here, where the config names none


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model directory and what was loaded from it. ``config`` is config.json as it stands in the file."""

    directory: Path
    config: dict[str, Any]
    model: Any
    tokenizer: Any


def read_config(directory: Path) -> dict[str, Any]:
    """config.json as it stands. Raises ``SourceError``."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise SourceError(f"{path}: not a JSON object")
    return config


def number_format(config: dict[str, Any]) -> torch.dtype:
    """The config's ``dtype`` (``torch_dtype`` before transformers 5); float16 if it is float32, as engines load it.

    Raises ``SourceError`` for one that no engine runs AWQ in.
    """
    name = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    match name:
        case "bfloat16":
            return torch.bfloat16
        case "float16" | "float32":
            return torch.float16
    raise SourceError(f"config.json: dtype is {name!r}, and not bfloat16, float16 or float32")


def load_source(directory: Path, *, device: str) -> Source:
    """Load in float32, so that nothing is rounded before it is quantized, and check it. Raises ``SourceError``."""
    config = read_config(directory)
    if "quantization_config" in config:
        raise SourceError(f"{directory} is quantized already: its config has a quantization_config")
    number_format(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        model, loading = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # of a damaged file, the libraries raise what comes
        raise SourceError(f"{directory}: cannot be loaded: {error}") from error
    source = Source(directory=directory, config=config, model=model.to(device).eval(), tokenizer=tokenizer)
    problems = check_model(model, config, tokenizer)
    if loading["missing_keys"]:
        problems.insert(0, f"not on disk: {', '.join(sorted(loading['missing_keys']))}")
    # Layers that config.json does not count are left out without a word.
    left_out = sorted(name for name in loading["unexpected_keys"] if _layer_of(name) >= model.config.num_hidden_layers)
    if left_out:
        problems.append(f"more layers on disk than config.json counts: {left_out[0]}")
    if problems:
        raise SourceError(f"{directory} was loaded wrongly: " + "; ".join(problems))
    return source


def _layer_of(name: str) -> int:
    found = re.match(r"model\.layers\.(\d+)\.", name)
    return int(found[1]) if found else -1


def check_model(model: Any, config: dict[str, Any], tokenizer: Any) -> list[str]:
    """What a loaded model has that ``config`` does not say, one sentence each."""
    problems = []
    expected = rotary_base(config)
    actual = _loaded_rotary_base(model)
    if expected is not None and actual is not None and abs(actual / expected - 1) > 1e-3:  # noqa: PLR2004
        problems.append(f"the rotary base is {actual:.0f} in memory and {expected:.0f} in config.json")
    rows = model.get_input_embeddings().weight.shape[0]
    if rows != config.get("vocab_size", rows):
        problems.append(f"{rows} embeddings, but vocab_size is {config['vocab_size']}")
    if len(tokenizer) > rows:
        problems.append(f"the tokenizer has {len(tokenizer)} tokens, the model {rows} embeddings")
    is_tied = model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    if is_tied != config.get("tie_word_embeddings", model.config.tie_word_embeddings):
        problems.append(f"input and output embeddings are {'' if is_tied else 'not '}tied, against config.json")
    broken = [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]
    if broken:
        problems.append(f"NaN or infinity in {', '.join(broken)}")
    return problems


def rotary_base(config: dict[str, Any]) -> float | None:
    """The rotary base that config.json asks for, in either spelling; None where it differs by layer.

    Raises ``SourceError`` if the two spellings contradict each other, since readers differ in which one they believe.
    """
    new = config.get("rope_parameters") or {}
    if not isinstance(new, dict):
        raise SourceError("config.json: rope_parameters is not an object")
    if any(isinstance(value, dict) for value in new.values()):
        return None
    old = config.get("rope_theta")
    if old is not None and new.get("rope_theta") not in (None, old):
        raise SourceError(f"config.json: rope_theta is {old}, but rope_parameters say {new['rope_theta']}")
    base = new.get("rope_theta") or old or _DEFAULT_ROTARY_BASE
    if not isinstance(base, int | float):
        raise SourceError(f"config.json: rope_theta is {base!r}, and no number")
    return float(base)


def _loaded_rotary_base(model: Any) -> float | None:
    """The base that the frequencies in memory were computed with; None where they are scaled for long contexts."""
    rotary = getattr(model.base_model, "rotary_emb", None)
    if rotary is None or getattr(rotary, "rope_type", "default") != "default":
        return None
    # inverse frequency i is base ** (-2 i / dimensions), so the second one tells the base
    frequencies = rotary.inv_freq
    return float(frequencies[1].double() ** -len(frequencies))
