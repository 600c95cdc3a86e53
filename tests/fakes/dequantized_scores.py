"""What the dequantized weights make of token ids: ``python -m tests.fakes.dequantized_scores IDS.json DIR...``.

Writes a line of JSON for each directory, as ``vllm_scores`` does: the mean negative log likelihood, in float32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from quantizer.checkpoint import load_checkpoint


def loss(directory: Path, prompts: list[list[int]]) -> float:
    """Nats a token, over every id of ``prompts`` but the first of each."""
    model = load_checkpoint(directory, device="cpu")
    losses = []
    with torch.inference_mode():
        for prompt in prompts:
            ids = torch.tensor([prompt])
            scores = model(input_ids=ids).logits[0].log_softmax(dim=-1)
            losses += (-scores[:-1].gather(1, ids[0, 1:, None])).flatten().tolist()
    return sum(losses) / len(losses)


def main(ids: Path, directories: list[str]) -> None:
    """Load each checkpoint after the other, and score."""
    prompts = json.loads(ids.read_text(encoding="utf-8"))
    for directory in directories:
        print(json.dumps({"directory": directory, "nll": loss(Path(directory), prompts)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
