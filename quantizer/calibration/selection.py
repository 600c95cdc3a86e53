"""From a calibration file to blocks: read, deduplicate, tokenise, sample, pack, and account for every document."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from quantizer.calibration.documents import Document, read_corpus
from quantizer.calibration.histogram import Histogram
from quantizer.calibration.packing import Blocks, pack
from quantizer.calibration.sampling import sample
from quantizer.calibration.tokens import tokenize
from quantizer.errors import CalibrationError
from quantizer.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The blocks, and where every document of the file went: used, or dropped for a named reason."""

    blocks: Blocks
    histogram: Histogram  # of the documents used, the built-in set's prose excepted
    traffic: Histogram | None
    documents: int
    duplicates: int
    held_out: int  # dropped because the evaluation uses the same text

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest; ``digest`` is of the token ids, so it names the text without holding it."""
        return {
            "digest": self.blocks.digest(),
            "blocks": len(self.blocks.token_ids),
            "tokens": self.blocks.tokens(),
            "documents": self.documents,
            "dropped": {
                "duplicates": self.duplicates,
                "in_held_out_set": self.held_out,
                "no_room": self.blocks.left_out,
            },
            "divided": self.blocks.divided,
            "histogram": self.histogram.to_json(),
            "traffic": self.traffic.to_json() if self.traffic else None,
        }


def select(path: Path | None, tokenizer: Any, recipe: Recipe, *, held_out: Collection[str] = ()) -> Calibration:
    """Build the calibration of a recipe. ``held_out`` names normalized documents that must not be used.

    Raises ``CalibrationError`` if the file does not fill half of what the recipe asks for; between half and all of it,
    the blocks are fewer than ``recipe.samples``.
    """
    corpus = read_corpus(path)
    unique: dict[str, Document] = {}
    for document in corpus.documents:
        unique.setdefault(document.normalized(), document)
    fresh = [document for key, document in unique.items() if key not in held_out]
    budget = recipe.samples * recipe.length
    chosen = sample(
        [tokenize(document, tokenizer) for document in fresh],
        budget_tokens=budget,
        traffic=corpus.traffic,
        rng=Random(recipe.seed),
    )
    blocks = pack(chosen, samples=recipe.samples, length=recipe.length, pad_id=tokenizer.pad_token_id or 0)
    if blocks.tokens() < budget / 2:
        raise CalibrationError(
            f"{path or 'the built-in set'} holds {blocks.tokens()} tokens of what the traffic looks like; "
            f"the recipe asks for {recipe.samples} x {recipe.length} = {budget}: add documents or lower --samples"
        )
    # The prose of the built-in set keeps a model good at text; no prompt looks like it.
    prompts = [document for document in chosen if document.turns] if path is None else chosen
    return Calibration(
        blocks=blocks,
        histogram=Histogram.of((document.prompt_tokens, document.turns) for document in prompts),
        traffic=corpus.traffic,
        documents=len(corpus.documents),
        duplicates=len(corpus.documents) - len(unique),
        held_out=len(unique) - len(fresh),
    )
