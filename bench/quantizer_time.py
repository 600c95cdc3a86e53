"""AutoAWQ as it is shipped against AutoAWQ as the quantizer mends it: time for the same layers on the same blocks.

    python -m bench.quantizer_time --model DIR [--layers N] [--only as-shipped | mended] [--keep DIR]

Both run in one process, one after the other, with the same threads; ``--only`` takes one of them, so that two processes
can run side by side on cores of their own. Loading, proof and saving are not in it. Process time stands beside wall
time, which on a busy machine says more of its neighbours. ``--keep`` writes what AutoAWQ as shipped makes of the model
as a checkpoint, with the source's tokenizer and config, for ``python -m quantizer verify``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from quantizer.backends.autoawq import quantization_config
from quantizer.backends.autoawq_cure import CuredAwqQuantizer
from quantizer.backends.backend import Quantized
from quantizer.calibration.packing import Blocks
from quantizer.calibration.selection import select
from quantizer.checkpoint import write_checkpoint
from quantizer.pipeline import best_device
from quantizer.recipe import BITS, Recipe
from quantizer.source import load_source, number_format, read_config

with warnings.catch_warnings(record=True):  # as in autoawq_cure
    warnings.simplefilter("default")
    from awq import AutoAWQForCausalLM
    from awq.quantize.quantizer import AwqQuantizer

Seconds = dict[str, float]


@contextmanager
def _timed(seconds: Seconds) -> Iterator[None]:
    wall_s, process_s = time.perf_counter(), time.process_time()
    yield
    seconds |= {"wall_s": time.perf_counter() - wall_s, "process_s": time.process_time() - process_s}


def as_shipped(model: Path, blocks: Blocks, layers: int | None, recipe: Recipe, keep: Path | None) -> Seconds:
    """AutoAWQ, called as its README says, but for the layers that are left out."""
    seconds: Seconds = {}

    class FirstLayers(AwqQuantizer):  # type: ignore[misc]  # awq has no types
        def quantize(self) -> None:
            untyped: Any = self
            untyped.modules = untyped.modules[:layers]
            with _timed(seconds):
                super().quantize()

    loaded: Any = AutoAWQForCausalLM.from_pretrained(str(model), device_map=None)
    loaded.quantize(
        AutoTokenizer.from_pretrained(model),
        quant_config={"zero_point": True, "q_group_size": recipe.group_size, "w_bit": BITS, "version": "GEMM"},
        calib_data=[list(ids) for ids in blocks.token_ids],
        max_calib_samples=len(blocks.token_ids),
        max_calib_seq_len=len(blocks.token_ids[0]),
        quantizer_cls=FirstLayers,
    )
    if keep:
        tensors = {name: tensor.cpu() for name, tensor in loaded.model.state_dict().items()}
        if loaded.model.config.tie_word_embeddings:
            del tensors["lm_head.weight"]
        keep.mkdir(parents=True)
        quantized = Quantized(tensors=tensors, quantization_config=quantization_config(recipe))
        write_checkpoint(keep, model, read_config(model), quantized)
    return seconds


def mended(model: Path, blocks: Blocks, layers: int | None, recipe: Recipe) -> Seconds:
    """The quantizer's default backend, without its staging files."""
    source = load_source(model, device=best_device())
    quantizer = CuredAwqQuantizer(
        source.model, group_size=recipe.group_size, blocks=blocks, norm_dtype=number_format(source.config)
    )
    seconds: Seconds = {}
    inputs = quantizer.inps
    with _timed(seconds):
        for index in range(len(quantizer.modules))[:layers]:
            _, inputs = quantizer.quantize_layer(index, inputs)
    return seconds


def main() -> None:
    """Print both times, and the one relative to the other, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--layers", type=int, help="the first ones; all by default")
    parser.add_argument("--only", choices=("as-shipped", "mended"))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--group-size", type=int, default=64)
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    logging.captureWarnings(capture=True)
    recipe = Recipe(group_size=options.group_size, samples=options.samples, length=options.length)
    blocks = select(None, load_source(options.model, device="cpu").tokenizer, recipe).blocks
    figures: dict[str, Any] = {
        "layers": options.layers or "all",
        "blocks": f"{len(blocks.token_ids)} x {options.length}",
        "threads": torch.get_num_threads(),
        "device": best_device(),
    }
    if options.only != "mended":
        figures["as_shipped"] = as_shipped(options.model, blocks, options.layers, recipe, options.keep)
    if options.only != "as-shipped":
        figures["mended"] = mended(options.model, blocks, options.layers, recipe)
    if options.only is None:
        for kind in ("wall_s", "process_s"):
            figures[f"mended_over_as_shipped_{kind}"] = figures["mended"][kind] / figures["as_shipped"][kind]
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
