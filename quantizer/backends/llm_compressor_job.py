"""Runs inside llm-compressor's own environment: ``python llm_compressor_job.py JOB.json``. Imports nothing of ours.

The job names ``source`` and ``out`` (directories), ``group_size``, and ``blocks`` of token ids with their ``mask``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from transformers import AutoModelForCausalLM


def main(job: dict[str, Any]) -> None:
    """Quantize with AWQ and write a compressed-tensors checkpoint."""
    if not torch.accelerator.is_available():
        # llm-compressor 0.14 pins memory for an accelerator without asking whether there is one.
        IntermediatesCache.pin_memory = lambda *_: None
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": job["group_size"]}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    model = AutoModelForCausalLM.from_pretrained(job["source"], dtype=torch.float32, local_files_only=True)
    oneshot(
        model=model,
        tokenizer=job["source"],
        dataset=Dataset.from_dict({"input_ids": job["blocks"], "attention_mask": job["mask"]}),
        recipe=[AWQModifier(duo_scaling="both"), QuantizationModifier(config_groups=groups, ignore=["lm_head"])],
        num_calibration_samples=len(job["blocks"]),
        max_seq_length=len(job["blocks"][0]),
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(job["out"], save_compressed=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
